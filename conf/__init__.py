"""The configurations of bdlf as the package `bdlf.conf`, which `hydra.initialize_config_module` asks for."""
