//! The options of `bake`, as whatever wraps the program for a CI system must offer them.

#![allow(dead_code, reason = "each test program uses its own part")]

/// An option of `bake`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakeOption {
    /// `volume-name`
    pub name: String,
    /// `EBS_BAKE_VOLUME_NAME`
    pub variable: String,
    /// What `--help` says, its default included: `Name of the volume, also its label [default: chef]`.
    pub help: String,
}

/// All of them, in the order of `--help`, the general ones last.
pub fn bake_options() -> Vec<BakeOption> {
    let definition = ebs_bake::cli::definition();
    let bake = definition.find_subcommand("bake").expect("there is such a command");
    let named = bake.get_arguments().chain(definition.get_arguments());
    let option = |argument: &clap::Arg| {
        let name = argument.get_long()?.to_owned();
        let variable = format!("EBS_BAKE_{}", name.to_uppercase().replace('-', "_"));
        let help = argument.get_help()?.to_string();
        Some(BakeOption { name, variable, help })
    };
    named.filter_map(option).collect()
}
