//! What a git host sends: references, packs, and objects that git itself would not send.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest, Sha1};

use super::git_server::Fault;

pub fn packet(content: &[u8]) -> Vec<u8> {
    [format!("{:04x}", content.len() + 4).as_bytes(), content].concat()
}

/// What a git host advertises: `HEAD` is `main`, and more lines.
pub fn advertised(commit: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let head = format!("{commit} HEAD\0side-band-64k ofs-delta shallow thin-pack symref=HEAD:refs/heads/main\n");
    let lines = [head, format!("{commit} refs/heads/main\n")].map(String::into_bytes);
    let lines = lines.iter().chain(more).map(|line| packet(line));
    [packet(b"# service=git-upload-pack\n"), b"0000".to_vec()]
        .into_iter()
        .chain(lines)
        .chain([b"0000".to_vec()])
        .collect::<Vec<_>>()
        .concat()
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Numbers as packs and deltas have them: seven bits a byte, the least first.
pub fn varint(mut number: u64, mut first: u8, bits: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    first |= (number & ((1 << bits) - 1)) as u8;
    number >>= bits;
    while number > 0 {
        bytes.push(first | 0x80);
        first = (number & 0x7f) as u8;
        number >>= 7;
    }
    bytes.push(first);
    bytes
}

const COMMIT: u8 = 1;
const TREE: u8 = 2;
pub const BLOB: u8 = 3;
pub const DELTA: u8 = 7;

/// An entry of a pack: `base` for one that is a delta.
pub fn entry(kind: u8, size: u64, base: &[u8], content: &[u8]) -> Vec<u8> {
    [varint(size, kind << 4, 4), base.to_vec(), deflated(content)].concat()
}

pub fn pack(count: u32, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes(), &entries.concat()].concat();
    let hash = Sha1::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

/// The answer that brings a pack.
pub fn sent(pack: &[u8]) -> Vec<u8> {
    let start = [b"0000".to_vec(), packet(b"NAK\n")].concat();
    let pieces = pack.chunks(60_000).map(|piece| packet(&[b"\x01", piece].concat()));
    [start].into_iter().chain(pieces).chain([b"0000".to_vec()]).collect::<Vec<_>>().concat()
}

fn id_of(kind: &str, content: &[u8]) -> [u8; 20] {
    Sha1::new().chain_update(format!("{kind} {}\0", content.len())).chain_update(content).finalize().into()
}

/// A pack of some kilobytes: a commit with one file, a delta that copies its base again and again until it is so large.
pub fn delta_bomb(size: u64) -> (String, Vec<u8>) {
    const PIECE: u64 = 0xff_ffff;
    let base = vec![0; PIECE as usize + 1];
    let copies = size / PIECE;
    let mut delta = [varint(base.len() as u64, 0, 7), varint(copies * PIECE, 0, 7)].concat();
    for _ in 0..copies {
        delta.extend_from_slice(&[0x80 | 0x70, 0xff, 0xff, 0xff]);
    }
    // Which nobody gets to compute.
    let blob = [9_u8; 20];
    let tree = [&b"100644 large\0"[..], &blob].concat();
    let tree_id = git2::Oid::from_bytes(&id_of("tree", &tree)).unwrap();
    let commit = format!("tree {tree_id}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n").into_bytes();
    let commit_id = git2::Oid::from_bytes(&id_of("commit", &commit)).unwrap().to_string();
    let entries = [
        entry(COMMIT, commit.len() as u64, b"", &commit),
        entry(TREE, tree.len() as u64, b"", &tree),
        entry(BLOB, base.len() as u64, b"", &base),
        entry(DELTA, delta.len() as u64, &id_of("blob", &base), &delta),
    ];
    (commit_id, pack(4, &entries))
}

/// Objects for a pack: git itself would not send some of them.
#[derive(Default)]
pub struct Objects(Vec<Vec<u8>>);

impl Objects {
    pub fn add(&mut self, kind: u8, content: &[u8]) -> String {
        self.0.push(entry(kind, content.len() as u64, b"", content));
        let name = ["commit", "tree", "blob"][usize::from(kind) - 1];
        git2::Oid::from_bytes(&id_of(name, content)).unwrap().to_string()
    }

    pub fn tree(&mut self, items: &[(&str, &[u8], &str)]) -> String {
        let content = tree(items);
        self.add(TREE, &content)
    }

    /// The answers of a host whose `main` is a commit of this tree.
    pub fn served(mut self, tree: &str) -> Fault {
        let commit = format!("tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n");
        let commit = self.add(COMMIT, commit.as_bytes());
        Fault::Answers(advertised(&commit, &[]), sent(&pack(self.0.len() as u32, &self.0)))
    }
}

/// It copies a hundred bytes of five.
pub fn lying_delta() -> Vec<u8> {
    let delta = [5, 100, 0x90, 100];
    entry(DELTA, delta.len() as u64, &id_of("blob", b"hello"), &delta)
}

/// A tree object, sorted as git sorts.
pub fn tree(items: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let mut items = items.to_vec();
    items.sort_by_key(|(mode, name, _)| [*name, if *mode == "40000" { &b"/"[..] } else { &b""[..] }].concat());
    let mut content = Vec::new();
    for (mode, name, id) in items {
        content.extend([mode.as_bytes(), b" ", name, b"\0", git2::Oid::from_str(id).unwrap().as_bytes()].concat());
    }
    content
}
