//! What the program prints about itself: completions and the manual page.

use clap_complete::Shell;

use crate::error::{Kind, OrFail, Result};

/// The completion script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::definition(), "ebs-bake", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page (roff): the program's, then a section for each command.
pub fn manual() -> Result<String> {
    let mut page = Vec::new();
    let mut definition = super::definition();
    definition.build();
    let cannot = || "cannot write the manual page";
    clap_mangen::Man::new(definition.clone()).render(&mut page).or_fail(Kind::Usage, cannot)?;
    for command in definition.get_subcommands() {
        let heading = format!(".SH \"EBS-BAKE {}\"\n", command.get_name().to_uppercase());
        page.extend_from_slice(heading.as_bytes());
        let man = clap_mangen::Man::new(command.clone());
        man.render_description_section(&mut page).or_fail(Kind::Usage, cannot)?;
        man.render_options_section(&mut page).or_fail(Kind::Usage, cannot)?;
        man.render_extra_section(&mut page).or_fail(Kind::Usage, cannot)?;
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}
