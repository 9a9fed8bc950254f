//! Reading an object of hundreds of megabytes without holding it in memory.

use std::io::{BufReader, Read};

use git2::{ObjectType, Oid, Repository};

use super::libgit::git_error;
use super::packed::Packs;
use crate::error::{Kind, OrFail, Result};

/// Hands the object's type, size and content to `consume`.
///
/// The content is a stream for loose objects and for those that a pack holds whole (as git does above
/// `core.bigFileThreshold`, and [`super`] always); one that is a delta is put together in memory by libgit2.
/// Nothing is verified: the content may be longer or shorter than `size` in a damaged repository.
pub fn stream_object<T>(
    repository: &Repository,
    id: Oid,
    consume: impl FnOnce(ObjectType, usize, &mut dyn Read) -> Result<T>,
) -> Result<T> {
    let failed = || format!("cannot read object {id}");
    let packs = Packs::open(&repository.commondir().join("objects/pack"));
    if let Some(entry) = packs.whole(id).or_fail(Kind::Git, failed)? {
        let file = BufReader::with_capacity(1 << 16, entry.stream().or_fail(Kind::Git, failed)?);
        return consume(entry.kind, entry.size, &mut flate2::bufread::ZlibDecoder::new(file));
    }
    let odb = repository.odb().map_err(git_error(failed()))?;
    if let Ok((mut reader, size, kind)) = odb.reader(id) {
        return consume(kind, size, &mut reader);
    }
    let object = odb.read(id).map_err(git_error(failed()))?;
    consume(object.kind(), object.len(), &mut object.data())
}
