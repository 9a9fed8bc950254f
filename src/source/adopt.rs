//! Moving what was fetched aside into the repository on the volume.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use git2::Repository;

use super::baked::{set_shallow, shallow};
use crate::error::{Kind, OrFail, Result};
use crate::step;

/// Copies the packs of one repository into another, and where its history is cut. What is there already stays.
///
/// # Errors
/// Kind `Git`: something cannot be read or written, such as for want of space.
pub fn adopt(from: &Repository, into: &Repository) -> Result<()> {
    let failed = || format!("cannot copy the fetched objects to {}", into.path().display());
    copy_packs(&from.commondir().join("objects/pack"), &into.commondir().join("objects/pack")).or_fail(Kind::Git, failed)?;
    let mut cuts = shallow(into)?;
    cuts.extend(shallow(from)?);
    set_shallow(into, &cuts)?;
    into.odb().and_then(|odb| odb.refresh()).or_fail(Kind::Git, failed)
}

/// The index comes last and by a rename: a pack counts once its index is there.
fn copy_packs(from: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for extension in ["pack", "idx"] {
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            let (Some(name), true) = (path.file_name(), path.extension() == Some(OsStr::new(extension))) else { continue };
            let (aside, place) = (into.join(format!("tmp_{extension}_adopted")), into.join(name));
            if place.exists() {
                continue;
            }
            let adopt = || fs::copy(&path, &aside).and_then(|_| fs::rename(&aside, &place));
            step::around(format_args!("adopting a file .{extension}"), adopt).inspect_err(|_| {
                let _ = fs::remove_file(&aside);
            })?;
        }
    }
    Ok(())
}
