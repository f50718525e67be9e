"""python -m bdlf.train"""
from bdlf.command import run_command
from bdlf.config import Config
def train(config):
    print(config.variant, config.dfe, config.schedule, config.sweep, config.precision)
    return 0
if __name__ == "__main__":
    run_command("config", Config, train)
