use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1024;

/// A sparse file of `len` bytes with these runs `(offset, length, byte)` written in order.
fn image(len: u64, runs: &[(u64, u64, u8)]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    for (offset, length, byte) in runs {
        file.write_all_at(&vec![*byte; *length as usize], *offset).unwrap();
    }
    file
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn empty() -> File {
    tempfile::tempfile().unwrap()
}

/// The number of blocks that differ, found the slow way.
fn differing(a: &[u8], b: &[u8]) -> u64 {
    let mut b = b.to_vec();
    b.resize(a.len(), 0);
    a.chunks(BLOCK as usize).zip(b.chunks(BLOCK as usize)).filter(|(a, b)| a != b).count() as u64
}

fn runs(len: u64) -> impl Strategy<Value = Vec<(u64, u64, u8)>> {
    let run = (0..len / 4096, 1..200_u64, prop_oneof![Just(0), Just(7), any::<u8>()])
        .prop_map(move |(page, pages, byte)| (page * 4096, (pages * 4096).min(len - page * 4096), byte));
    proptest::collection::vec(run, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_has_the_same_bytes_and_the_difference_is_exact(ours in runs(4 << 20), theirs in runs(3 << 20)) {
        let (source, base, target) = (image(4 << 20, &ours), image(3 << 20, &theirs), empty());
        let changed = copy_and_compare(&source, &target, Some(&base), &CancellationToken::new()).unwrap();
        prop_assert!(content(&target) == content(&source));
        prop_assert_eq!(changed, differing(&content(&source), &content(&base)));
        // Comparing alone, as after a reflink, finds the same.
        let walk = Walk { source: &source, len: 4 << 20, base: Some(&base), target: None };
        prop_assert_eq!(walk.run(&CancellationToken::new()).unwrap(), changed);
    }
}

#[test]
fn zeros_are_not_stored() {
    let source = image(8 << 20, &[(0, 6 << 20, 0), (1 << 20, 4096, 1)]);
    let target = empty();
    let changed = copy_and_compare(&source, &target, None, &CancellationToken::new()).unwrap();
    assert_eq!(changed, 1);
    assert!(source.metadata().unwrap().blocks() * 512 >= 6 << 20, "the source must hold zeros for this test to mean something");
    assert!(target.metadata().unwrap().blocks() * 512 <= 16 * KIB);
}

#[test]
fn data_that_is_gone_counts_as_changed() {
    let (source, base) = (image(2 << 20, &[]), image(2 << 20, &[(BLOCK, 512, 1), (2 * BLOCK, 512, 0)]));
    let changed = copy_and_compare(&source, &empty(), Some(&base), &CancellationToken::new()).unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn a_cancelled_copy_stops() {
    let stop = CancellationToken::new();
    stop.cancel();
    let error = copy(&image(1 << 20, &[(0, 512, 1)]), &empty(), &stop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
}

#[test]
fn an_error_while_writing_is_the_one_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("read-only");
    std::fs::write(&path, b"").unwrap();
    let (source, target) = (image(8 << 20, &[(0, 8 << 20, 1)]), File::open(&path).unwrap());
    let walk = Walk { source: &source, len: 8 << 20, base: None, target: Some(&target) };
    assert_eq!(walk.run(&CancellationToken::new()).unwrap_err().raw_os_error(), Some(libc::EBADF));
}

#[test]
fn pieces_are_what_either_has_and_end_with_their_block() {
    let piece = |bytes, in_source, in_base| Piece { bytes, in_source, in_base };
    let (a, b) = (BLOCK + 4096, 2 * BLOCK + 512);
    assert_eq!(
        pieces(&[0..100, 4096..b], &[50..4096, a..a + 10, 9 * BLOCK..9 * BLOCK + 1]),
        [
            piece(0..50, true, false),
            piece(50..100, true, true),
            piece(100..4096, false, true),
            piece(4096..BLOCK, true, false),
            piece(BLOCK..a, true, false),
            piece(a..a + 10, true, true),
            piece(a + 10..2 * BLOCK, true, false),
            piece(2 * BLOCK..b, true, false),
            piece(9 * BLOCK..9 * BLOCK + 1, false, true),
        ]
    );
    assert_eq!(pieces(&[], &[]), []);
}
