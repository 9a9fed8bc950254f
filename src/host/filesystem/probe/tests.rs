use std::io::Write;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const SIZE: usize = 8 << 20;

/// A file of [`SIZE`] zeros with these bytes written at these offsets.
fn image(parts: &[(usize, &[u8])]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset as u64).unwrap();
    }
    file
}

fn probed(parts: &[(usize, &[u8])]) -> Probe {
    probe(&image(parts), SIZE as u64).unwrap()
}

fn partition_table() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[446..462].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn zeros_are_blank_and_one_byte_is_not() {
    assert_eq!(probed(&[]), Probe::Blank);
    for place in [0, 5000, (4 << 20) - 1, SIZE - (1 << 20), SIZE - 1] {
        assert_eq!(probed(&[(place, b"x")]), Probe::Unknown, "{place}");
    }
}

#[test]
fn tiny_devices_are_read_whole() {
    for size in [512, 1024, 2048, 70_000, 300_000] {
        let file = image(&[]);
        assert_eq!(probe(&file, size).unwrap(), Probe::Blank, "{size}");
        file.write_all_at(b"x", size / 2).unwrap();
        assert_eq!(probe(&file, size).unwrap(), Probe::Unknown, "{size}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_blank() {
    assert_eq!(probe(&image(&[]), 0).unwrap_err().kind(), Kind::Device);
    assert_eq!(probe(&image(&[]), SIZE as u64 + 512).unwrap_err().kind(), Kind::Device, "shorter than it says");
    let mut write_only = tempfile::NamedTempFile::new().unwrap();
    write_only.write_all(&[0; 4096]).unwrap();
    let file = File::options().write(true).open(write_only.path()).unwrap();
    assert_eq!(probe(&file, 4096).unwrap_err().kind(), Kind::Device);
}

#[test]
fn filesystems_are_recognised() {
    for (offset, bytes, name) in FILESYSTEMS {
        assert_eq!(probed(&[(offset, bytes)]), Probe::Mountable(name), "{name} at {offset}");
    }
    let Probe::Ext(superblock) = probed(&[(1024, &superblock::tests::sample())]) else { panic!("not found") };
    assert_eq!(superblock.label, "chef");
}

#[test]
fn containers_are_recognised_and_win_over_a_filesystem_in_them() {
    let ext = superblock::tests::sample();
    for (offset, bytes, name) in CONTAINERS {
        assert_eq!(probed(&[(offset, bytes)]), Probe::Foreign(name), "{name} at {offset}");
        if !(1024..2048).contains(&offset) {
            assert_eq!(probed(&[(1024, &ext), (offset, bytes)]), Probe::Foreign(name), "{name} with ext4");
        }
    }
    let zfs = (0x00ba_b10c_u64.to_be_bytes(), 0x00ba_b10c_u64.to_le_bytes());
    for uberblock in [zfs.0, zfs.1] {
        assert_eq!(probed(&[((128 << 10) + 5 * 1024, &uberblock)]), Probe::Foreign("a ZFS pool"));
    }
    for end in [0x2000, 0x1_0000] {
        assert_eq!(probed(&[(1024, &ext), (SIZE - end, &MD_MAGIC)]), Probe::Foreign("a member of a RAID array (md)"));
    }
}

#[test]
fn partition_tables_are_recognised_and_boot_sectors_are_not_taken_for_them() {
    let table = partition_table();
    assert_eq!(probed(&[(0, &table)]), Probe::Foreign("a partition table (MBR)"));
    let ext = superblock::tests::sample();
    assert_eq!(probed(&[(0, &table), (1024, &ext)]), Probe::Foreign("a partition table (MBR)"));
    assert!(matches!(probed(&[(510, &[0x55, 0xaa]), (1024, &ext)]), Probe::Ext(_)), "a boot sector without partitions");
    assert_eq!(probed(&[(0, b"\xebX\x90"), (82, b"FAT32   "), (510, &[0x55, 0xaa])]), Probe::Mountable("vfat"));
    assert_eq!(probed(&[(SIZE - 512, b"EFI PART")]), Probe::Foreign("a partition table (GPT)"));
    assert_eq!(probed(&[(SIZE - 4096, b"EFI PART")]), Probe::Foreign("a partition table (GPT)"));
    assert!(matches!(probed(&[(SIZE - 512, b"EFI PART"), (1024, &ext)]), Probe::Ext(_)), "an old copy that mkfs left");
}

#[test]
fn a_damaged_ext4_is_not_blank() {
    let mut damaged = superblock::tests::sample();
    damaged[0x38] = 0;
    assert_eq!(probed(&[(1024, &damaged)]), Probe::Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_it_panic(head in proptest::collection::vec(any::<u8>(), 0..5000), cut in 0usize..5000, more in 0u64..100_000) {
        let tail = &head[cut.min(head.len())..];
        let _ = identify(&head, tail, tail.len() as u64 + more);
    }
}
