//! What the program prints about itself: completions and the manual page.

use std::io::{self, Write};

use clap_complete::Shell;
use clap_mangen::Man;

use crate::error::{Kind, OrFail, Result};

/// The completion script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::definition(), "ebs-bake", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page (roff): one for the program and all of its commands.
pub fn manual() -> Result<String> {
    let mut page = Vec::new();
    write_manual(&mut page).or_fail(Kind::Usage, || "cannot write the manual page")?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn write_manual(page: &mut Vec<u8>) -> io::Result<()> {
    let mut definition = super::definition();
    definition.build();
    let man = Man::new(definition.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    for command in definition.get_subcommands() {
        write_command(command, page)?;
    }
    let mut rest = Vec::new();
    man.render_options_section(&mut rest)?;
    man.render_extra_section(&mut rest)?;
    page.extend(String::from_utf8_lossy(&rest).replace(".SH EXTRA", ".SH CONFIGURATION").bytes());
    write_exit_status(page)
}

/// A section for a command, its options in subsections; those of every command are not repeated.
fn write_command(command: &clap::Command, page: &mut Vec<u8>) -> io::Result<()> {
    let own = command.clone().mut_args(|argument| {
        let everywhere = argument.is_global_set() || argument.get_id() == "help";
        argument.hide(everywhere)
    });
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    write!(page, ".SH \"EBS-BAKE {}\"\n{about}.\n", command.get_name().to_uppercase())?;
    let mut sections = Vec::new();
    if own.get_arguments().any(|argument| !argument.is_hide_set()) {
        Man::new(own.clone()).render_options_section(&mut sections)?;
    }
    if own.get_after_help().is_some() {
        Man::new(own).render_extra_section(&mut sections)?;
    }
    let sections = String::from_utf8_lossy(&sections).replace(".SH EXTRA", ".SH NOTES").replace(".SH ", ".SS ");
    page.write_all(sections.as_bytes())
}

fn write_exit_status(page: &mut Vec<u8>) -> io::Result<()> {
    let meanings = [
        (0, "done: created or reused"),
        (Kind::Usage.exit_code(), "an option, a variable or the file is wrong"),
        (Kind::Permission.exit_code(), "not permitted, or no credentials"),
        (Kind::Contended.exit_code(), "the volume is in use by somebody else"),
        (Kind::Storage.exit_code(), "the block storage refused or failed"),
        (Kind::Device.exit_code(), "a device, a filesystem or a mount"),
        (Kind::Git.exit_code(), "git: repository, ref, host key, checkout"),
        (Kind::Snapshot.exit_code(), "the snapshot failed or did not complete in time"),
        (Kind::Fleet.exit_code(), "launch template, launch configuration, Auto Scaling group, instance refresh"),
        (Kind::Cleanup.exit_code(), "the snapshot is good, but what comes after it failed"),
        (Kind::Check.exit_code(), "what is in the repository did not pass the checks"),
        (Kind::Interrupted(libc::SIGINT).exit_code(), "interrupted"),
        (Kind::Interrupted(libc::SIGTERM).exit_code(), "terminated"),
    ];
    writeln!(page, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in meanings {
        write!(page, ".TP\n{code}\n{meaning}\n")?;
    }
    Ok(())
}
