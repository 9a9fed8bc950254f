//! Index files of packs (version 2).

use std::io::{self, Write};

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
    }
}
