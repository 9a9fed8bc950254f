//! What there is, beside what shall be: from the index when it can be trusted, else from the work tree itself.

use super::beneath;
use super::index::{Entry, Index, Stat};
use super::tree::{Mode, Target, below};

/// What was found where an entry of the target belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Exactly what shall be there.
    Right(Stat),
    /// Nothing, or something that is going to be removed.
    Nothing,
    /// A regular file of ours with other content, which takes so many bytes of the filesystem.
    OtherContent { allocated: u64 },
    /// The right content with the wrong permissions.
    OtherMode,
}

/// Something that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub path: Box<[u8]>,
    /// A directory that goes only if nothing is left in it.
    pub if_empty: bool,
    /// How many files and directories go.
    pub count: usize,
    /// How many bytes of the filesystem that frees, at least.
    pub freed: u64,
}

/// The difference between what there is and what shall be.
#[derive(Debug, Default)]
pub struct Observed {
    /// For each entry of the target.
    pub found: Vec<Found>,
    pub removals: Vec<Removal>,
    /// Directories to make.
    pub missing_directories: Vec<Box<[u8]>>,
    /// Directories with wrong permissions.
    pub odd_directories: Vec<Box<[u8]>>,
    /// How many files were compared with the index.
    pub examined: usize,
}

impl Observed {
    /// Puts removals and directories into the order in which they have to be done.
    pub fn sort(&mut self) {
        // What is in a directory sorts after it; so it goes first when the order is reversed.
        self.removals.sort_by(|a, b| (a.if_empty, &b.path).cmp(&(b.if_empty, &a.path)));
        self.missing_directories.sort();
        self.missing_directories.dedup();
    }
}

/// The directories above a path, deepest first, without the root.
pub fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(beneath::split(path).0), |directory| Some(beneath::split(directory).0))
        .take_while(|directory| !directory.is_empty())
}

/// Takes the index for what there is. `refiltered` tells whether a file's filter is another now; `block` is the size of
/// the filesystem's blocks.
pub fn from_index(index: &Index, target: &Target, refiltered: impl Fn(&Entry) -> bool, block: u64) -> Observed {
    let mut observed = Observed { found: Vec::with_capacity(target.entries.len()), ..Observed::default() };
    let freed = |entry: &Entry| match entry.mode {
        Mode::File | Mode::Executable => u64::from(entry.stat.size).next_multiple_of(block),
        Mode::Symlink | Mode::Submodule => 0,
    };
    let remove = |entry: &Entry| Removal { path: entry.path.clone(), if_empty: false, count: 1, freed: freed(entry) };
    let mut old = index.entries.iter().peekable();
    for entry in &target.entries {
        while let Some(gone) = old.next_if(|old| old.path < entry.path) {
            observed.removals.push(remove(gone));
        }
        let found = match old.next_if(|old| old.path == entry.path) {
            None => Found::Nothing,
            Some(old) if old.id == entry.id && old.mode == entry.mode && !refiltered(entry) => Found::Right(old.stat),
            Some(old) if old.mode.is_file() && entry.mode.is_file() => match old.id == entry.id && !refiltered(entry) {
                true => Found::OtherMode,
                false => Found::OtherContent { allocated: freed(old) },
            },
            Some(old) if old.mode == Mode::Submodule && entry.mode == Mode::Submodule => Found::Right(old.stat),
            Some(old) => {
                observed.removals.push(remove(old));
                Found::Nothing
            }
        };
        if found == Found::Nothing {
            let is_new = |directory: &&[u8]| below(&index.entries, directory).is_empty();
            observed.missing_directories.extend(parents(&entry.path).take_while(is_new).map(Box::from));
        }
        observed.found.push(found);
    }
    observed.removals.extend(old.map(remove));
    remove_emptied(&mut observed, target, block);
    observed
}

/// Directories that held removed files and hold nothing of the target.
fn remove_emptied(observed: &mut Observed, target: &Target, block: u64) {
    let mut emptied: Vec<Box<[u8]>> = Vec::new();
    for removal in &observed.removals {
        let unused = |directory: &&[u8]| below(&target.entries, directory).is_empty();
        emptied.extend(parents(&removal.path).take_while(unused).map(Box::from));
    }
    emptied.sort();
    emptied.dedup();
    let removal = |path| Removal { path, if_empty: true, count: 1, freed: block };
    observed.removals.extend(emptied.into_iter().map(removal));
}
