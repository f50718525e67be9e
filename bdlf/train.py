"""Train one configuration, score it, and record it in its own run folder.

Examples
  python -m bdlf.train                                      # synthetic data, a few CPU minutes
  python -m bdlf.train dataset=regdb dfe.stage=3            # the paper's recipe on RegDB
  python -m bdlf.train -m variant=baseline,full seed=0,1,2  # six runs, each in its own folder
"""
from bdlf.command import run_command
from bdlf.config import Config
def train(config):
    print(config.variant, config.dfe, config.schedule, config.sweep, config.precision)
    return 0
if __name__ == "__main__":
    run_command("config", Config, train, __doc__)
