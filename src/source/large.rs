//! Reading an object of hundreds of megabytes without holding it in memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use git2::{ObjectType, Oid, Repository};

use super::libgit::git_error;
use crate::error::{Kind, OrFail, Result};

/// Hands the object's type, size and content to `consume`.
///
/// The content is a stream for loose objects and for those that a pack holds whole (which git does above
/// `core.bigFileThreshold` and [`super`] always does); one that is a delta is put together in memory by libgit2.
/// Nothing is verified: the content may be longer or shorter than `size` in a damaged repository.
pub fn stream_object<T>(
    repository: &Repository,
    id: Oid,
    consume: impl FnOnce(ObjectType, usize, &mut dyn Read) -> Result<T>,
) -> Result<T> {
    let unreadable = || git_error(format!("cannot read object {id}"));
    let odb = repository.odb().map_err(unreadable())?;
    let (size, kind) = odb.read_header(id).map_err(unreadable())?;
    let packs = repository.commondir().join("objects/pack");
    if let Some(entry) = find_whole(&packs, id).or_fail(Kind::Git, || format!("cannot look for object {id} in the packs"))? {
        return consume(kind, size, &mut flate2::bufread::ZlibDecoder::new(BufReader::with_capacity(1 << 16, entry)));
    }
    if let Ok((mut reader, size, kind)) = odb.reader(id) {
        return consume(kind, size, &mut reader);
    }
    let object = odb.read(id).map_err(unreadable())?;
    consume(object.kind(), object.len(), &mut object.data())
}

/// The compressed bytes of an object that some pack in `directory` holds whole.
fn find_whole(directory: &Path, id: Oid) -> io::Result<Option<File>> {
    let packs = match directory.read_dir() {
        Ok(packs) => packs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for file in packs {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        if let Some(offset) = find_offset(&File::open(&path)?, id)? {
            let mut pack = File::open(path.with_extension("pack"))?;
            pack.seek(SeekFrom::Start(offset))?;
            if skip_header(&mut pack)? {
                return Ok(Some(pack));
            }
        }
    }
    Ok(None)
}

/// Looks an object up in an index of version 2; any other is passed over.
fn find_offset(index: &File, id: Oid) -> io::Result<Option<u64>> {
    let number = |at: u64| -> io::Result<u32> {
        let mut bytes = [0; 4];
        index.read_exact_at(&mut bytes, at)?;
        Ok(u32::from_be_bytes(bytes))
    };
    const FANOUT: u64 = 8;
    const NAMES: u64 = FANOUT + 256 * 4;
    if number(0)? != 0xff74_4f63 || number(4)? != 2 {
        return Ok(None);
    }
    let first = u64::from(id.as_bytes()[0]);
    let mut low = if first == 0 { 0 } else { u64::from(number(FANOUT + (first - 1) * 4)?) };
    let mut high = u64::from(number(FANOUT + first * 4)?);
    let total = u64::from(number(FANOUT + 255 * 4)?);
    let mut name = [0; 20];
    while low < high {
        let middle = low + (high - low) / 2;
        index.read_exact_at(&mut name, NAMES + middle * 20)?;
        match name.as_slice().cmp(id.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                let offsets = NAMES + total * 24;
                let near = u64::from(number(offsets + middle * 4)?);
                if near & 0x8000_0000 == 0 {
                    return Ok(Some(near));
                }
                let far = offsets + total * 4 + (near & 0x7fff_ffff) * 8;
                return Ok(Some((u64::from(number(far)?) << 32) | u64::from(number(far + 4)?)));
            }
        }
    }
    Ok(None)
}

/// Reads an entry's type and size; whether it is a whole object rather than a delta.
fn skip_header(pack: &mut File) -> io::Result<bool> {
    let mut byte = [0];
    pack.read_exact(&mut byte)?;
    let whole = (1..=4).contains(&((byte[0] >> 4) & 7));
    while byte[0] & 0x80 != 0 {
        pack.read_exact(&mut byte)?;
    }
    Ok(whole)
}
