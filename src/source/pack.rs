//! Writing a pack: whole objects, compressed by several threads, in bounded memory, equal bytes for equal input. Objects
//! that a pack of the source holds whole are copied as they are.
//!
//! No deltas: finding them costs more than a volume's blocks do, and reading a file back then needs one inflation only.

use std::io::{self, BufWriter, Read, Write};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use git2::{ObjectType, Odb, Oid, Repository};
use sha1::{Digest, Sha1};

use super::Fetched;
use super::large::stream_object;
use super::libgit::{git_error, open_repository};
use super::pack_index::{self, Item};
use super::packed::{self, Packs};
use crate::cancel::Cancel;
use crate::error::{Error, Kind, OrFail, Result};
use crate::step;

/// Objects that one thread compresses before it hands them on.
const BATCH: usize = 64;
/// Beyond this, an object is compressed while it is written, by one thread, rather than held in memory.
const LARGE: usize = 4 << 20;
/// How much of a large object is in memory at a time.
const CHUNK: usize = 1 << 16;
/// More threads than this wait for the disk.
const MOST_THREADS: usize = 4;

/// A pack to be written.
pub(super) struct NewPack<'a> {
    /// The repository that has the objects.
    pub source: &'a Path,
    /// The directory that the pack goes to (`objects/pack`).
    pub directory: &'a Path,
    /// The objects, each once, in the order in which they shall be in the pack.
    pub objects: &'a [Oid],
    /// How hard to compress, from 1 to 9. [`FAST`] for what is wanted soon.
    pub level: u32,
}

/// zlib's fastest.
pub(super) const FAST: u32 = 1;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub fetched: Fetched,
    /// The pack's index; none when there was nothing to write.
    pub path: Option<PathBuf>,
}

/// What one thread has made of one object.
enum Entry {
    Compressed { id: Oid, bytes: Vec<u8>, crc: u32 },
    Large(Oid),
}

impl NewPack<'_> {
    /// Writes the pack and its index under temporary names, then renames them. A kill leaves at most `tmp_*` files.
    /// Calls `progress` with the number of objects written so far. An empty pack is not written.
    pub fn write(&self, cancel: &Cancel, mut progress: impl FnMut(u64)) -> Result<Written> {
        if self.objects.is_empty() {
            return Ok(Written::default());
        }
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        let threads = threads.min(self.objects.len().div_ceil(BATCH));
        std::thread::scope(|scope| {
            let mut receivers = Vec::new();
            for first in 0..threads {
                // Room for one batch: the threads stay just ahead of the writer, and memory stays bounded.
                let (sender, receiver) = sync_channel(1);
                scope.spawn(move || self.compress(first, threads, &sender).or_else(|error| sender.send(Err(error))));
                receivers.push(receiver);
            }
            let mut writer = Writer::create(self)?;
            let large = open_repository(self.source).map_err(git_error("cannot open the source repository"))?;
            self.collect(&receivers, |entry| {
                cancel.check()?;
                match entry {
                    Entry::Compressed { id, bytes, crc } => writer.add(id, &bytes, crc)?,
                    Entry::Large(id) => writer.add_large(&large, id, cancel)?,
                }
                progress(writer.items.len() as u64);
                Ok(())
            })?;
            writer.finish()
        })
    }

    /// Takes the batches in turn from the threads, which work on every n-th: the order is that of `objects`.
    fn collect(&self, receivers: &[Receiver<Result<Vec<Entry>>>], mut take: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        for batch in 0..self.objects.len().div_ceil(BATCH) {
            let entries = receivers[batch % receivers.len()].recv();
            for entry in entries.or_fail(Kind::Git, || "a thread that compresses objects ended early")?? {
                take(entry)?;
            }
        }
        Ok(())
    }

    fn compress(&self, first: usize, step: usize, sender: &SyncSender<Result<Vec<Entry>>>) -> Result<()> {
        let repository = open_repository(self.source).map_err(git_error("cannot open the source repository"))?;
        let odb = repository.odb().map_err(git_error("cannot open the source's object database"))?;
        let packs = Packs::open(&repository.commondir().join("objects/pack"));
        let mut compressor = Compressor {
            odb: &odb,
            packs: &packs,
            deflate: flate2::Compress::new(flate2::Compression::new(self.level), true),
            inflate: flate2::Decompress::new(true),
            content: Vec::new(),
        };
        for batch in self.objects.chunks(BATCH).skip(first).step_by(step) {
            let entries = batch.iter().map(|id| compressor.entry(*id)).collect::<Result<Vec<_>>>()?;
            // The receiver goes away when the writer fails: then there is nothing left to do.
            if sender.send(Ok(entries)).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// What one thread works with.
struct Compressor<'a> {
    odb: &'a Odb<'a>,
    packs: &'a Packs,
    deflate: flate2::Compress,
    inflate: flate2::Decompress,
    content: Vec<u8>,
}

impl Compressor<'_> {
    fn entry(&mut self, id: Oid) -> Result<Entry> {
        let whole = self.packs.whole(id).or_fail(Kind::Git, || format!("cannot read object {id}"))?;
        match whole {
            Some(entry) if entry.size > LARGE => Ok(Entry::Large(id)),
            Some(entry) => self.copy(id, &entry),
            None => self.compress(id),
        }
    }

    /// Takes the compressed bytes as they are: most objects of a fresh clone. They are checked all the same.
    fn copy(&mut self, id: Oid, entry: &packed::Entry<'_>) -> Result<Entry> {
        let read = entry.read(&mut self.inflate, &mut self.content).or_fail(Kind::Git, || format!("cannot read object {id}"))?;
        // libgit2 may know better; if not, it says so.
        let Some(bytes) = read else { return self.compress(id) };
        check_hash(id, hasher(entry.kind, entry.size).chain_update(&self.content))?;
        let crc = crc32fast::hash(&bytes);
        Ok(Entry::Compressed { id, bytes, crc })
    }

    fn compress(&mut self, id: Oid) -> Result<Entry> {
        let unreadable = || git_error(format!("cannot read object {id}"));
        let (size, _) = self.odb.read_header(id).map_err(unreadable())?;
        if size > LARGE {
            return Ok(Entry::Large(id));
        }
        let object = self.odb.read(id).map_err(unreadable())?;
        let (kind, data) = (object.kind(), object.data());
        check_hash(id, hasher(kind, data.len()).chain_update(data))?;
        let mut bytes = Vec::with_capacity(data.len() / 2 + 64);
        push_header(&mut bytes, kind, data.len());
        self.deflate.reset();
        loop {
            bytes.reserve(data.len() / 8 + 64);
            let done = usize::try_from(self.deflate.total_in()).expect("the object is in memory");
            let status = self.deflate.compress_vec(&data[done..], &mut bytes, flate2::FlushCompress::Finish);
            if status.or_fail(Kind::Git, || format!("cannot compress object {id}"))? == flate2::Status::StreamEnd {
                let crc = crc32fast::hash(&bytes);
                return Ok(Entry::Compressed { id, bytes, crc });
            }
        }
    }
}

/// The hash of an object begins with its type and size.
fn hasher(kind: ObjectType, size: usize) -> Sha1 {
    Sha1::new().chain_update(format!("{} {size}\0", kind.str()))
}

/// What is copied is hashed: a damaged or forged object in the source must not get any further.
fn check_hash(id: Oid, hasher: Sha1) -> Result<()> {
    if hasher.finalize().as_slice() == id.as_bytes() { Ok(()) } else { Err(damaged(id)) }
}

fn damaged(id: Oid) -> Error {
    Error::new(Kind::Git, format!("object {id} of the source repository is damaged")).hint("run git fsck there")
}

/// The type and size of an object, as they stand before its compressed bytes.
pub(super) fn push_header(bytes: &mut Vec<u8>, kind: ObjectType, size: usize) {
    let number = match kind {
        ObjectType::Commit => 1,
        ObjectType::Tree => 2,
        ObjectType::Tag => 4,
        _ => 3,
    };
    let mut rest = size >> 4;
    let low = u8::try_from(size & 15).expect("four bits");
    bytes.push((number << 4) | low | if rest > 0 { 0x80 } else { 0 });
    while rest > 0 {
        let seven = u8::try_from(rest & 0x7f).expect("seven bits");
        rest >>= 7;
        bytes.push(seven | if rest > 0 { 0x80 } else { 0 });
    }
}

/// A pack file that grows.
struct Writer {
    file: BufWriter<tempfile::NamedTempFile>,
    hash: Sha1,
    offset: u64,
    items: Vec<Item>,
    level: u32,
    directory: PathBuf,
}

fn cannot_write(directory: &Path) -> impl Fn() -> String + '_ {
    move || format!("cannot write a pack to {}", directory.display())
}

/// A file that becomes visible only when it is complete; git's own clean-up knows the prefix.
fn temporary(directory: &Path, prefix: &str) -> Result<tempfile::NamedTempFile> {
    let read_only = std::fs::Permissions::from_mode(0o444);
    let file = tempfile::Builder::new().prefix(prefix).permissions(read_only).tempfile_in(directory);
    file.or_fail(Kind::Git, cannot_write(directory))
}

impl Writer {
    fn create(pack: &NewPack<'_>) -> Result<Writer> {
        let (directory, objects) = (pack.directory, pack.objects.len());
        std::fs::create_dir_all(directory).or_fail(Kind::Git, cannot_write(directory))?;
        let file = BufWriter::with_capacity(1 << 18, temporary(directory, "tmp_pack_")?);
        let items = Vec::with_capacity(objects);
        let mut writer =
            Writer { file, hash: Sha1::new(), offset: 0, items, level: pack.level, directory: directory.to_path_buf() };
        let count = u32::try_from(objects).or_fail(Kind::Git, || "more objects than a pack can hold")?;
        writer.put(b"PACK\0\0\0\x02")?;
        writer.put(&count.to_be_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).or_fail(Kind::Git, cannot_write(&self.directory))
    }

    fn add(&mut self, id: Oid, bytes: &[u8], crc: u32) -> Result<()> {
        self.items.push(Item { id, crc, offset: self.offset });
        self.put(bytes)
    }

    fn add_large(&mut self, source: &Repository, id: Oid, cancel: &Cancel) -> Result<()> {
        let offset = self.offset;
        let mut header = Vec::new();
        let mut crc = crc32fast::Hasher::new();
        stream_object(source, id, |kind, size, reader| {
            push_header(&mut header, kind, size);
            crc.update(&header);
            self.put(&header)?;
            let mut hash = hasher(kind, size);
            let level = flate2::Compression::new(self.level);
            let mut sink = Tee { writer: self, crc: &mut crc };
            let mut deflate = flate2::write::ZlibEncoder::new(&mut sink, level);
            let mut buffer = Vec::with_capacity(CHUNK);
            // Full chunks: what the compressor makes depends on how the input is cut.
            while reader.take(CHUNK as u64).read_to_end(&mut buffer).or_fail(Kind::Git, || format!("cannot read object {id}"))?
                > 0
            {
                cancel.check()?;
                hash.update(&buffer);
                deflate.write_all(&buffer).or_fail(Kind::Git, || format!("cannot write object {id}"))?;
                buffer.clear();
            }
            deflate.finish().or_fail(Kind::Git, || format!("cannot write object {id}"))?;
            check_hash(id, hash)
        })?;
        self.items.push(Item { id, crc: crc.finalize(), offset });
        Ok(())
    }

    fn finish(mut self) -> Result<Written> {
        let hash: [u8; 20] = self.hash.clone().finalize().into();
        self.put(&hash)?;
        let failed = cannot_write(&self.directory);
        let pack = self.file.into_inner().map_err(io::IntoInnerError::into_error).or_fail(Kind::Git, &failed)?;
        let objects = self.items.len();
        let mut index = BufWriter::new(temporary(&self.directory, "tmp_idx_")?);
        pack_index::write(&mut index, &mut self.items, &hash).or_fail(Kind::Git, &failed)?;
        let index = index.into_inner().map_err(io::IntoInnerError::into_error).or_fail(Kind::Git, &failed)?;
        let name = Oid::from_bytes(&hash).map_err(git_error("a hash has 20 bytes"))?;
        let path = self.directory.join(format!("pack-{name}"));
        // The pack before its index: who finds an index may rely on the pack.
        step::before("keeping the pack");
        pack.persist(path.with_extension("pack")).or_fail(Kind::Git, &failed)?;
        step::before("keeping its index");
        index.persist(path.with_extension("idx")).or_fail(Kind::Git, &failed)?;
        step::after("keeping its index");
        let fetched = Fetched { objects, bytes: self.offset };
        Ok(Written { fetched, path: Some(path.with_extension("idx")) })
    }
}

/// Writes to the pack and counts the checksum of the entry.
struct Tee<'a> {
    writer: &'a mut Writer,
    crc: &'a mut crc32fast::Hasher,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.writer.put(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
