//! Index files of packs (version 2).

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::Path;

use git2::Oid;
use sha1::{Digest, Sha1};

/// Where an object is in its pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub id: Oid,
    pub crc: u32,
    pub offset: u64,
}

/// The beginning of every index of version 2.
const MAGIC: &[u8] = b"\xfftOc\0\0\0\x02";
/// Offsets from here on are in a table of their own.
const FAR: u64 = 1 << 31;

/// Writes the index of a pack whose own checksum is `pack`. Sorts the items.
pub(super) fn write(file: &mut impl Write, items: &mut [Item], pack: &[u8; 20]) -> io::Result<()> {
    items.sort_unstable_by_key(|item| item.id);
    let mut file = Hashed { file, hash: Sha1::new() };
    file.write_all(MAGIC)?;
    let mut below = 0;
    for first in 0..=255 {
        below += items[below..].partition_point(|item| item.id.as_bytes()[0] <= first);
        file.write_all(&number(below))?;
    }
    items.iter().try_for_each(|item| file.write_all(item.id.as_bytes()))?;
    items.iter().try_for_each(|item| file.write_all(&item.crc.to_be_bytes()))?;
    let far: Vec<u64> = items.iter().map(|item| item.offset).filter(|offset| *offset >= FAR).collect();
    let mut seen = 0;
    for item in items.iter() {
        match u32::try_from(item.offset) {
            Ok(near) if item.offset < FAR => file.write_all(&near.to_be_bytes())?,
            _ => {
                let place = u32::from_be_bytes(number(seen)) | 0x8000_0000;
                file.write_all(&place.to_be_bytes())?;
                seen += 1;
            }
        }
    }
    far.iter().try_for_each(|offset| file.write_all(&offset.to_be_bytes()))?;
    file.write_all(pack)?;
    let hash = file.hash.finalize();
    file.file.write_all(&hash)
}

/// The objects of the pack that an index of version 2 belongs to, and how many bytes each takes in it. `pack_size` is the
/// size of the pack's file.
pub(super) fn read(path: &Path, pack_size: u64) -> io::Result<Vec<(Oid, u64)>> {
    let bytes = std::fs::read(path)?;
    parse(&bytes, pack_size).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a pack index of version 2"))
}

pub(super) fn parse(bytes: &[u8], pack_size: u64) -> Option<Vec<(Oid, u64)>> {
    let index = Index::new(bytes)?;
    let mut items = Vec::with_capacity(index.count);
    for place in 0..index.count {
        items.push((Oid::from_bytes(index.name(place)?).ok()?, index.offset(place)?));
    }
    // An object ends where the next one begins; the last one before the pack's own hash.
    items.sort_unstable_by_key(|(_, offset)| *offset);
    let mut end = pack_size.saturating_sub(20);
    for (_, offset) in items.iter_mut().rev() {
        let begin = std::mem::replace(offset, end.saturating_sub(*offset));
        end = begin;
    }
    Some(items)
}

/// Where an object is, by the content of an index of version 2.
pub(super) fn find(bytes: &[u8], id: Oid) -> Option<u64> {
    let index = Index::new(bytes)?;
    let first = usize::from(id.as_bytes()[0]);
    let mut low = if first == 0 { 0 } else { index.below(first - 1)? };
    let mut high = index.below(first)?;
    while low < high {
        let middle = low + (high - low) / 2;
        match index.name(middle)?.cmp(id.as_bytes()) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return index.offset(middle),
        }
    }
    None
}

/// The parts of an index.
struct Index<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Index<'a> {
    const FANOUT: usize = 8;
    const NAMES: usize = Self::FANOUT + 256 * 4;

    fn new(bytes: &'a [u8]) -> Option<Self> {
        let index = Index { bytes, count: 0 };
        let count = index.below(255)?;
        // Even without far offsets there must be this much.
        let enough = bytes.len() >= Self::NAMES + count.checked_mul(28)? + 40;
        (bytes.starts_with(MAGIC) && enough).then_some(Index { bytes, count })
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    /// How many names begin with this byte or a lower one.
    fn below(&self, first: usize) -> Option<usize> {
        self.word(Self::FANOUT + first * 4).map(|count| count as usize)
    }

    fn name(&self, place: usize) -> Option<&'a [u8]> {
        self.bytes.get(Self::NAMES + place * 20..Self::NAMES + place * 20 + 20)
    }

    fn offset(&self, place: usize) -> Option<u64> {
        let offsets = Self::NAMES + self.count * 24;
        let near = u64::from(self.word(offsets + place * 4)?);
        if near < FAR {
            return Some(near);
        }
        let at = offsets + self.count * 4 + usize::try_from(near - FAR).ok()? * 8;
        Some(u64::from(self.word(at)?) << 32 | u64::from(self.word(at + 4)?))
    }
}

fn number(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("a pack has fewer than 2^32 objects").to_be_bytes()
}

struct Hashed<W> {
    file: W,
    hash: Sha1,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_beyond_two_gib_go_to_their_own_table() {
        let id = |byte: u8| Oid::from_bytes(&[byte; 20]).unwrap();
        let far = 5_000_000_000_u64;
        let mut items = vec![
            Item { id: id(9), crc: 3, offset: far },
            Item { id: id(0), crc: 1, offset: 12 },
            Item { id: id(255), crc: 4, offset: FAR },
        ];
        let mut bytes = Vec::new();
        write(&mut bytes, &mut items, &[7; 20]).unwrap();
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let fanout = |first: usize| word(8 + first * 4);
        assert_eq!((fanout(0), fanout(8), fanout(9), fanout(254), fanout(255)), (1, 1, 2, 2, 3));
        let offsets = 8 + 1024 + 3 * 20 + 3 * 4;
        assert_eq!([word(offsets), word(offsets + 4), word(offsets + 8)], [12, 0x8000_0000, 0x8000_0001]);
        assert_eq!(bytes[offsets + 12..offsets + 20], far.to_be_bytes());
        assert_eq!(bytes[offsets + 20..offsets + 28], FAR.to_be_bytes());
        assert_eq!(bytes.len(), offsets + 28 + 40);
        let sizes = parse(&bytes, far + 120).unwrap();
        assert_eq!(sizes, [(id(0), FAR - 12), (id(255), far - FAR), (id(9), 100)]);
        assert_eq!(
            [find(&bytes, id(0)), find(&bytes, id(9)), find(&bytes, id(255)), find(&bytes, id(8))],
            [Some(12), Some(far), Some(FAR), None]
        );
        assert_eq!(parse(&bytes[..bytes.len() - 60], far), None);
        assert_eq!(find(b"", id(0)), None);
    }
}
