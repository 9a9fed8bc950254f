//! The options of a command, as whatever wraps the program for a CI system must offer them.

#![allow(dead_code, reason = "each test program uses its own part")]

/// An option of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOption {
    /// `volume-name`
    pub name: String,
    /// `EBS_BAKE_VOLUME_NAME`
    pub variable: String,
    /// What `--help` says, its default included: `Name of the volume, also its label [default: chef]`.
    pub help: String,
}

/// Those of `bake`.
pub fn bake_options() -> Vec<CommandOption> {
    options_of("bake")
}

/// All of a command, in the order of `--help`, the general ones last.
pub fn options_of(command: &str) -> Vec<CommandOption> {
    let definition = ebs_bake::cli::definition();
    let command = definition.find_subcommand(command).expect("there is such a command");
    let named = command.get_arguments().chain(definition.get_arguments());
    let option = |argument: &clap::Arg| {
        let name = argument.get_long()?.to_owned();
        let variable = format!("EBS_BAKE_{}", name.to_uppercase().replace('-', "_"));
        let help = argument.get_help()?.to_string();
        Some(CommandOption { name, variable, help })
    };
    named.filter_map(option).collect()
}
