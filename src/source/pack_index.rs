//! Index files of packs (version 2).

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

/// Offsets from here on are in a table of their own.
const FAR: u64 = 1 << 31;

/// Writes the index of a pack whose own checksum is `pack`. Sorts the items.
pub(super) fn write(file: &mut impl Write, items: &mut [Item], pack: &[u8; 20]) -> io::Result<()> {
    items.sort_unstable_by_key(|item| item.id);
    let mut file = Hashed { file, hash: Sha1::new() };
    file.write_all(b"\xfftOc\0\0\0\x02")?;
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

fn parse(bytes: &[u8], pack_size: u64) -> Option<Vec<(Oid, u64)>> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if !bytes.starts_with(b"\xfftOc\0\0\0\x02") {
        return None;
    }
    const NAMES: usize = 8 + 256 * 4;
    let count = word(NAMES - 4)? as usize;
    let offsets = NAMES + count * 24;
    let far = offsets + count * 4;
    let mut items = Vec::with_capacity(count);
    for place in 0..count {
        let id = Oid::from_bytes(bytes.get(NAMES + place * 20..NAMES + place * 20 + 20)?).ok()?;
        let near = u64::from(word(offsets + place * 4)?);
        let offset = if near < FAR {
            near
        } else {
            let at = far + usize::try_from(near - FAR).ok()? * 8;
            u64::from(word(at)?) << 32 | u64::from(word(at + 4)?)
        };
        items.push((id, offset));
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
        assert_eq!(parse(&bytes[..bytes.len() - 60], far), None);
    }
}
