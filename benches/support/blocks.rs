//! Blocks of 512 KiB, which is what snapshots of volumes are made of.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::device::run;
use super::repository::text;

const BLOCK: u64 = 512 << 10;

/// The blocks of an image that are not all zero.
pub struct Blocks(HashMap<u64, u64>);

impl Blocks {
    /// Reads them; holes are skipped.
    pub fn of(image: &Path) -> Blocks {
        let file = File::open(image).expect("an image");
        let (mut blocks, mut buffer) = (HashMap::new(), vec![0; BLOCK as usize]);
        let mut position = 0;
        while let Some(data) = next_data(&file, position) {
            let number = data / BLOCK;
            let read = file.read_at(&mut buffer, number * BLOCK).expect("a block");
            if buffer[..read].iter().any(|byte| *byte != 0) {
                let mut hasher = DefaultHasher::new();
                hasher.write(&buffer[..read]);
                blocks.insert(number, hasher.finish());
            }
            position = (number + 1) * BLOCK;
        }
        Blocks(blocks)
    }

    /// How many differ.
    pub fn changed_to(&self, later: &Blocks) -> u64 {
        let changed = later.0.iter().filter(|(number, hash)| self.0.get(number) != Some(hash)).count();
        let zeroed = self.0.keys().filter(|number| !later.0.contains_key(number)).count();
        (changed + zeroed) as u64
    }
}

fn next_data(file: &File, from: u64) -> Option<u64> {
    match lseek(file, from.cast_signed(), Whence::SeekData) {
        Ok(at) => Some(at.cast_unsigned()),
        Err(Errno::ENXIO) => None,
        Err(errno) => panic!("cannot find the data of an image: {errno}"),
    }
}

/// How many blocks a fresh read-only mount of the image reads to list every directory and read every file but `.git`.
pub fn read_by_a_node(image: &Path, mount_point: &Path) -> u64 {
    std::fs::create_dir_all(mount_point).expect("a directory");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/blocks/read.py");
    run("python3", &[program, text(image), text(mount_point)]).parse().expect("it prints a number")
}
