//! Faults and bad inputs: each is named, nothing is left of it, and what was there before stays usable.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
mod support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use bake::{Host, succeed};
use git_cli::Scratch;
use support::needs_root;

fn start() -> (Host, Scratch) {
    let (host, scratch) = (Host::new(), Scratch::new());
    scratch.repository("up");
    (host, scratch)
}

#[test]
fn root_unfit_mount_points_are_refused() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    for name in ["used", "full", "target"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    fs::write(host.path("full/file"), "").unwrap();
    fs::write(host.path("file"), "").unwrap();
    symlink("target", host.path("link")).unwrap();
    succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(host.path("used")));
    for (name, why) in [("used", "mounted on it"), ("full", "not empty"), ("file", "not a directory"), ("link", "symbolic link")]
    {
        let failed = host.bake(&up).arg("--mount-point").arg(host.path(name)).failed(6);
        failed.says(why, if name == "link" { "name the directory" } else { "--mount-point" });
        assert!(failed.message.contains(&host.text(name)), "{}", failed.message);
    }
    succeed(Command::new("umount").arg(host.path("used")));
    host.assert_nothing_left(0);
    host.bake(&up).baked();
}

#[test]
fn root_a_mount_point_through_a_link_is_used() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    fs::create_dir(host.path("real")).unwrap();
    symlink("real", host.path("link")).unwrap();
    host.bake(scratch.path("up")).arg("--mount-point").arg(host.path("link/chef")).baked();
    assert_eq!(bake::names_in(&host.path("real")), [""; 0]);
}

#[test]
fn root_what_others_put_on_the_volume_is_taken_or_refused_but_never_formatted() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    host.bake(&up).baked();
    let image = host.volume();
    let empty = || {
        fs::File::options().write(true).open(&image).unwrap().set_len(0).unwrap();
        fs::File::options().write(true).open(&image).unwrap().set_len(8 << 30).unwrap();
    };

    let commit = scratch.commit("up", &[("README", "xfs\n")]);
    empty();
    succeed(Command::new("mkfs.xfs").arg("-q").arg(&image));
    let on_xfs = host.bake(&up).baked();
    assert!(on_xfs.done.detail("filesystem").contains("xfs"), "{}", on_xfs.done.detail("filesystem"));
    host.assert_holds(&on_xfs.id, &up, &commit);
    host.assert_nothing_left(1);

    scratch.commit("up", &[("README", "swap\n")]);
    empty();
    succeed(Command::new("mkswap").arg(&image));
    let start_of = || {
        let mut bytes = vec![0; 1 << 20];
        fs::File::open(&image).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = start_of();
    host.bake(&up).failed(6).says("swap", "--volume-name").says("refusing to format", "");
    assert!(before == start_of(), "the image was written to");
    host.assert_nothing_left(1);

    empty();
    let mut table = vec![0_u8; 512];
    table[446..462].copy_from_slice(&[0x80, 1, 1, 0, 0x83, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 0, 0x10, 0]);
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::File::options().write(true).open(&image).unwrap().write_all_at(&table, 0).unwrap();
    host.bake(&up).failed(6).says("refusing to format", "--volume-name").says("partition table", "");
    host.assert_nothing_left(1);
}

#[test]
fn root_a_filesystem_found_not_clean_is_checked_and_every_file_compared() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    host.bake(&up).baked();
    // As after a crash: the image as it is while the filesystem is mounted and written to.
    host.by_hand("rw", |root| {
        fs::write(root.join("README"), "half").unwrap();
        fs::write(root.join("left"), vec![1; 300_000]).unwrap();
        succeed(Command::new("sync").arg("-f").arg(root));
        succeed(Command::new("cp").arg("--sparse=always").arg(host.volume()).arg(host.path("crashed")));
    });
    succeed(Command::new("cp").arg("--sparse=always").arg(host.path("crashed")).arg(host.volume()));
    let commit = scratch.commit("up", &[("new", "n\n")]);
    let baked = host.bake(&up).baked();
    assert_ne!(baked.done.detail("filesystem"), "ext4, clean");
    assert!(baked.done.detail("checkout").contains("examined"), "{}", baked.done.detail("checkout"));
    host.assert_holds(&baked.id, &up, &commit);
    host.assert_nothing_left(1);
}

/// Overwrites what makes the image a filesystem.
fn ruin(image: &Path) {
    let file = fs::File::options().write(true).open(image).unwrap();
    // The superblock keeps its magic number, so that it still is an ext4, of which nothing can be saved.
    file.write_all_at(&[0xff; 0x30], 1024).unwrap();
    file.write_all_at(&[0, 0], 1024 + 0x3a).unwrap();
    for group in 0..9_u64 {
        file.write_all_at(&[0xff; 65536], 2048 + group * (8 << 20)).unwrap();
    }
}

#[test]
fn root_a_volume_beyond_repair_is_made_anew_from_its_last_snapshot() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    ruin(&host.volume());
    let commit = scratch.commit("up", &[("new", "n\n")]);
    let second = host.bake(&up).baked();
    assert!(second.done.warnings().contains("made anew"), "{}", second.done.stderr);
    assert_eq!(host.snapshots()[1]["parent"], first.id.as_str());
    host.assert_holds(&second.id, &up, &commit);
    host.assert_nothing_left(1);

    // Were the snapshot ruined as well, a blank volume is what is left.
    ruin(&host.volume());
    ruin(&host.snapshot_image(&second.id));
    let commit = scratch.commit("up", &[("new", "m\n")]);
    let third = host.bake(&up).baked();
    host.assert_holds(&third.id, &up, &commit);
    host.assert_nothing_left(1);
}

#[test]
fn root_a_blank_volume_of_a_killed_run_is_made_anew() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let mut run = host.bake(&up).started();
    assert!(run.until("started", "filesystem"));
    run.signal(libc::SIGKILL);
    run.end();
    host.wait_for_devices();
    let image = host.volume();
    fs::File::options().write(true).open(&image).unwrap().set_len(0).unwrap();
    fs::File::options().write(true).open(&image).unwrap().set_len(8 << 30).unwrap();
    let commit = scratch.git("up", &["rev-parse", "HEAD"]);
    let baked = host.bake(&up).baked();
    host.assert_holds(&baked.id, &up, &commit);
    host.program("cleanup").ended();
    host.assert_nothing_left(1);
}

#[test]
fn root_a_missing_program_is_noticed_before_anything_is_made() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    // Not executable, in a mount namespace of its own.
    fs::write(host.path("nothing"), "").unwrap();
    let mut run = bake::Run(Command::new("unshare"));
    let script = "mount --bind \"$0\" \"$(readlink -f \"$(command -v mkfs.ext4)\")\" && exec \"$@\"";
    run.0.args(["-m", "sh", "-c", script]).arg(host.path("nothing")).arg(env!("CARGO_BIN_EXE_ebs-bake"));
    run.0.args(["bake", "--log-format", "json", "--repository"]).arg(scratch.path("up"));
    run.0.arg("--local-dir").arg(host.path("store")).arg("--mount-point").arg(host.path("code/chef"));
    run.0.current_dir(host.path("home")).env("TMPDIR", host.path("tmp")).stdin(Stdio::null());
    run.failed(6).says("mkfs.ext4", "e2fsprogs");
    assert!(!host.path("store").exists());
}

#[test]
fn root_who_is_not_root_is_told_what_is_missing() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    // A copy: the build directory may be closed to others.
    let program = host.path("ebs-bake");
    fs::copy(env!("CARGO_BIN_EXE_ebs-bake"), &program).unwrap();
    for path in [host.path(""), scratch.path(""), host.path("home"), host.path("tmp")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut run = bake::Run(Command::new("setpriv"));
    run.0.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
    run.0.args(["bake", "--log-format", "json", "--repository"]).arg(scratch.path("up"));
    run.0.arg("--local-dir").arg(host.path("store")).arg("--mount-point").arg(host.path("code/chef"));
    run.0.current_dir(host.path("home")).env("TMPDIR", host.path("tmp")).env("HOME", host.path("home"));
    run.0.stdin(Stdio::null());
    // The repository is root's, which git would refuse to trust.
    succeed(Command::new("chown").args(["-R", "65534:65534"]).arg(scratch.path("up")));
    run.failed(3).says("CAP_SYS_ADMIN", "root");
    assert!(!host.path("store").exists() && !host.path("code").exists());
    assert_eq!(bake::names_in(&host.path("tmp")), [""; 0]);
}

#[test]
fn root_a_lock_that_is_not_had_in_time_names_its_holder() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let mut holder = host.bake(&up).args(["--after-checkout", "sleep 600"]).started();
    assert!(holder.until("started", "after-checkout"));
    let pid = holder.pid().to_string();
    let waiting = host.bake(&up).args(["--lock-timeout", "1s"]).failed(4);
    assert!(format!("{} {}", waiting.message, waiting.causes).contains(&pid), "{waiting:?} names {pid}");
    holder.signal(libc::SIGTERM);
    assert_eq!(holder.end().code, 143);
    host.assert_nothing_left(0);
}

#[test]
fn root_a_full_disk_under_the_store_is_named() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let mut noise = 1_u64;
    let mut next = |_| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 56) as u8
    };
    fs::write(scratch.path("up/big"), (0..12 << 20).map(&mut next).collect::<Vec<_>>()).unwrap();
    scratch.commit("up", &[]);
    fs::create_dir(host.path("store")).unwrap();
    let store = host.path("store");
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m,mode=700", "none"]).arg(&store));
    // First the volume does not fit, then its snapshot.
    for size in ["16m", "36m"] {
        succeed(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&store));
        let done = host.bake(scratch.path("up")).ended();
        assert_eq!(done.code, 5, "{size}: {done:?}");
        assert_eq!(done.stdout, "");
        assert_eq!(host.loop_devices(), []);
        assert_eq!((host.snapshots().len(), host.volumes().len()), (0, 0));
        assert_eq!(bake::names_in(&host.path("store/staging")), [""; 0]);
        assert_eq!(bake::names_in(&host.path("tmp")), [""; 0]);
    }
    succeed(Command::new("mount").args(["-o", "remount,size=400m"]).arg(&store));
    let baked = host.bake(scratch.path("up")).baked();
    host.assert_holds(&baked.id, &scratch.path("up"), &scratch.git("up", &["rev-parse", "HEAD"]));
    succeed(Command::new("umount").arg(&store));
}

#[test]
fn root_a_damaged_entry_of_the_store_harms_no_other() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let first = host.bake(&up).baked();
    scratch.commit("up", &[("new", "n\n")]);
    let second = host.bake(&up).baked();
    fs::write(host.path("store/snapshots").join(&first.id).join("snapshot.json"), "{").unwrap();
    let listed = host.snapshots();
    assert_eq!(listed.iter().filter(|it| it["state"] == "error").count(), 1, "{listed:?}");
    assert_eq!(host.bake(&up).baked().id, second.id);
    host.program("restore")
        .args(["--snapshot-id", &first.id, "--mount-point"])
        .arg(host.path("code/x"))
        .failed(5)
        .says(&first.id, "");
    host.assert_nothing_left(1);
    let commit = scratch.commit("up", &[("new", "m\n")]);
    let third = host.bake(&up).baked();
    host.assert_holds(&third.id, &up, &commit);
}

#[test]
fn root_outputs_that_cannot_be_written_are_noticed_first() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    for option in ["--output-json", "--output-env"] {
        host.bake(scratch.path("up")).arg(option).arg(host.path("no/such/file")).failed(2).says("no/such/file", "");
    }
    host.bake(scratch.path("up")).env("GITHUB_OUTPUT", host.path("no/such")).failed(2);
    assert!(!host.path("store").exists());
}

#[test]
fn root_lfs_pointers_are_refused_unless_they_are_wanted() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let up = scratch.path("up");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n", "a".repeat(64));
    let commit = scratch.commit("up", &[("logo.png", &pointer)]);
    host.bake(&up).failed(7).says("LFS", "--allow-lfs-pointers").says("logo.png", "");
    host.assert_nothing_left(0);
    let baked = host.bake(&up).arg("--allow-lfs-pointers").baked();
    host.assert_holds(&baked.id, &up, &commit);
}

#[test]
fn root_a_reader_that_went_away_is_no_error() {
    if !needs_root() {
        return;
    }
    let (host, scratch) = start();
    let mut run = host.bake(scratch.path("up"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = run.0.stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(host.snapshots().len(), 1);
    host.assert_nothing_left(1);
}
