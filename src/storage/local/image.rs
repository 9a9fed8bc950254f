//! Images: copying one without its holes, and counting where two differ.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tokio_util::sync::CancellationToken;

use crate::step;

/// The unit of `changed_blocks`: the granularity of EBS snapshots.
pub(super) const BLOCK: u64 = 512 * 1024;
/// A run of zeros of this many bytes, aligned, becomes a hole in a copy.
const PAGE: usize = 4096;
/// More threads gain nothing: two keep a disk and a memory bus busy.
const THREADS: usize = 2;

static ZEROS: [u8; PAGE] = [0; PAGE];

nix::ioctl_write_int_bad!(
    /// `FICLONE` of `include/uapi/linux/fs.h`: share all extents of a file.
    ficlone,
    nix::request_code_write!(0x94, 9, size_of::<libc::c_int>())
);

/// What a walk over an image does.
pub(super) struct Walk<'a> {
    /// The image that is walked over.
    pub source: &'a File,
    /// Its length in bytes.
    pub len: u64,
    /// What it is compared to; `None`: zeros. What it lacks in length counts as zeros.
    pub base: Option<&'a File>,
    /// Where its data goes: a file of the same length without data.
    pub target: Option<&'a File>,
}

/// Makes `target` share the content of `source`; `false` where the filesystem cannot.
pub(super) fn reflink(source: &File, target: &File) -> io::Result<bool> {
    // SAFETY: both descriptors are open; the kernel takes the second by value.
    match unsafe { ficlone(target.as_raw_fd(), source.as_raw_fd()) } {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes `target`, an empty file, a copy of `source`: by sharing where possible. Fails once `stop` is cancelled.
pub(super) fn copy(source: &File, target: &File, stop: &CancellationToken) -> io::Result<()> {
    step::before("copying an image");
    if reflink(source, target)? {
        return Ok(());
    }
    let len = source.metadata()?.len();
    target.set_len(len)?;
    Walk { source, len, base: None, target: Some(target) }.run(stop).map(drop)
}

/// [`copy`], and how many blocks of [`BLOCK`] bytes differ from `base` (without one: from zeros).
pub(super) fn copy_and_compare(source: &File, target: &File, base: Option<&File>, stop: &CancellationToken) -> io::Result<u64> {
    let len = source.metadata()?.len();
    step::before("copying an image");
    let shared = reflink(source, target)?;
    if !shared {
        target.set_len(len)?;
    }
    Walk { source, len, base, target: (!shared).then_some(target) }.run(stop)
}

impl Walk<'_> {
    /// Walks over what either file holds data for; returns how many blocks differ.
    pub fn run(&self, stop: &CancellationToken) -> io::Result<u64> {
        let ours = data_ranges(self.source, self.len)?;
        let theirs = self.base.map_or(Ok(Vec::new()), |base| data_ranges(base, self.len))?;
        let pieces = pieces(&ours, &theirs);
        let queue = Mutex::new(pieces.chunk_by(|a, b| a.bytes.start / BLOCK == b.bytes.start / BLOCK));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        // An error of one thread ends the others too.
        let failed = stop.child_token();
        let work = || {
            let mut buffers = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
            let mut changed = 0;
            while let Some(block) = next() {
                if failed.is_cancelled() {
                    return Err(cancelled());
                }
                changed += u64::from(self.visit(block, &mut buffers).inspect_err(|_| failed.cancel())?);
            }
            Ok(changed)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            let results: Vec<io::Result<u64>> =
                threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(panicked()))).collect();
            // The cause, not the cancellation that it led to.
            let is_cause = |r: &io::Result<u64>| r.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
            match results.iter().position(is_cause) {
                Some(cause) => results.into_iter().nth(cause).unwrap_or(Ok(0)),
                // Whoever stops waiting gives the volume back: what was read last may be another run's.
                None if stop.is_cancelled() => Err(cancelled()),
                None => results.into_iter().sum(),
            }
        })
    }

    /// Compares the pieces of one block, and writes them to the target; returns whether any differs from the base.
    fn visit(&self, block: &[Piece], (ours, theirs): &mut (Vec<u8>, Vec<u8>)) -> io::Result<bool> {
        step::before("a block of an image");
        let mut differs = false;
        for Piece { bytes, in_source, in_base } in block {
            let size = (bytes.end - bytes.start) as usize;
            let (ours, theirs) = (&mut ours[..size], &mut theirs[..size]);
            if *in_source && (self.target.is_some() || !differs) {
                read_at(self.source, bytes.start, ours)?;
            }
            if let Some(target) = self.target.filter(|_| *in_source) {
                write_data(target, bytes.start, ours)?;
            }
            if differs {
                continue;
            }
            if let Some(base) = self.base.filter(|_| *in_base) {
                read_at(base, bytes.start, theirs)?;
            }
            differs = match (in_source, in_base) {
                (true, true) => ours != theirs,
                (true, false) => !is_zero(ours),
                (false, _) => !is_zero(theirs),
            };
        }
        Ok(differs)
    }
}

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the copy was cancelled")
}

fn panicked() -> io::Error {
    io::Error::other("a copying thread panicked")
}

/// Fills `buffer` from `offset` on; beyond the end of the file are zeros.
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => {
                buffer[done..].fill(0);
                break;
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes what is not zero, in runs of whole pages as long as possible.
fn write_data(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut start = None;
    for at in (0..data.len()).step_by(PAGE) {
        let page = &data[at..data.len().min(at + PAGE)];
        match (is_zero(page), start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                file.write_all_at(&data[from..at], offset + from as u64)?;
                start = None;
            }
            _ => {}
        }
    }
    start.map_or(Ok(()), |from| file.write_all_at(&data[from..], offset + from as u64))
}

fn is_zero(data: &[u8]) -> bool {
    data.chunks(PAGE).all(|page| *page == ZEROS[..page.len()])
}

/// Bytes of one block that hold data in the same files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    bytes: Range<u64>,
    in_source: bool,
    in_base: bool,
}

/// What either file has data in, cut where blocks end; both lists are sorted and do not overlap.
fn pieces(source: &[Range<u64>], base: &[Range<u64>]) -> Vec<Piece> {
    let cuts = |range: &Range<u64>| (range.start / BLOCK + 1..range.end.div_ceil(BLOCK)).map(|block| block * BLOCK);
    let edges_of = |range: &Range<u64>| [range.start, range.end].into_iter().chain(cuts(range));
    let mut edges: Vec<u64> = source.iter().chain(base).flat_map(edges_of).collect();
    edges.sort_unstable();
    edges.dedup();
    let covers = |ranges: &[Range<u64>], byte| {
        let after = ranges.partition_point(|range| range.start <= byte);
        after > 0 && byte < ranges[after - 1].end
    };
    let piece =
        |edge: &[u64]| Piece { bytes: edge[0]..edge[1], in_source: covers(source, edge[0]), in_base: covers(base, edge[0]) };
    edges.windows(2).map(piece).filter(|piece| piece.in_source || piece.in_base).collect()
}

/// What a filesystem keeps data for (`SEEK_DATA`) in the first `len` bytes of a file, in order.
fn data_ranges(file: &File, len: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut position = 0;
    while position < len {
        let data = match lseek(file, to_offset(position)?, Whence::SeekData) {
            Ok(data) => data.cast_unsigned(),
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        if data >= len {
            break;
        }
        position = lseek(file, to_offset(data)?, Whence::SeekHole)?.cast_unsigned().min(len);
        ranges.push(data..position);
    }
    Ok(ranges)
}

fn to_offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
