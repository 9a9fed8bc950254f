//! What goes wrong at a node's boot, and what the node says then.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/bake.rs"]
#[allow(dead_code)]
mod bake;
#[path = "support/git_cli.rs"]
mod git_cli;
#[path = "support/node.rs"]
mod node;
mod support;
#[path = "support/tools.rs"]
mod tools;

use node::{Fixture, Node, appears_as, node, script};
use support::host::{Loop, MIB, run};
use support::{needs, needs_root};

const IMPATIENT: [&str; 4] = ["--role", "web", "--device-timeout", "1s"];

/// A disk with an ext4 filesystem of this label, and one file in it.
fn foreign(label: &str, file: &str, content: &str) -> (Loop, u64) {
    let disk = Loop::new(16 * MIB);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(file), content).unwrap();
    let device = disk.device.node().unwrap();
    run("mkfs.ext4", &["-q", "-L", label, "-d", directory.path().to_str().unwrap(), device.path().to_str().unwrap()]);
    let number = disk.device.number();
    (disk, number)
}

#[test]
fn root_a_device_that_comes_late_is_waited_for() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let node = node(&["--role", "web"]);
    let late = format!(
        "/boot-script & script=$!
until grep -q 'waiting for the volume' /var/log/ebs-bake-boot.log 2>/dev/null; do sleep 0.05; done
grep state /var/lib/ebs-bake-boot/status.json
{}wait $script",
        fixture.nitro()
    );
    let booted = node.boot(&late);
    booted.is_good();
    assert!(booted.said.contains("\"state\": \"waiting\""), "{booted:?}");
    assert!(booted.said.contains("is mounted at /chef now"), "{booted:?}");
}

#[test]
fn root_without_the_volume_the_wait_ends_and_says_what_there_is() {
    if !needs_root() {
        return;
    }
    let missing = node(&IMPATIENT);
    let booted = missing.boot("/boot-script");
    booted.failed(6, "no volume after 1 s: there is neither /dev/sdk nor a filesystem with the label chef");
    assert_eq!(booted.said.matches("waiting for the volume").count(), 1, "the same is not said again: {booted:?}");
    assert_eq!(missing.chef_calls(), [""; 0]);

    let blank = Loop::new(16 * MIB);
    let blank = appears_as(blank.device.number(), "/dev/sdk");
    node(&IMPATIENT)
        .boot(&(blank + "/boot-script"))
        .failed(6, "/dev/sdk has no filesystem: was its volume made from a snapshot?");
}

#[test]
fn root_of_several_volumes_the_mapping_names_the_right_one() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let copy = fixture.another();
    let both = copy.appears_as("/dev/nvme2n1")
        + "mkdir -p /dev/disk/by-id\n"
        + "ln -s ../../nvme2n1 /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol00000000000000001\n";
    let refused = node(&IMPATIENT).boot(&format!("{}{both}/boot-script", fixture.plain_nitro()));
    refused.failed(
        6,
        "several devices carry the label chef (/dev/nvme2n1 /dev/nvme1n1), and nothing tells which of them is /dev/sdk",
    );
    let booted = node(&IMPATIENT).boot(&format!("{}{both}/boot-script", fixture.nitro()));
    assert_eq!(booted.is_good().status["device"], "/dev/nvme1n1");

    // A disk that is no EBS volume and happens to have the label.
    let (disk, number) = foreign("chef", "README", "");
    let booted = node(&IMPATIENT).boot(&format!("{}{}/boot-script", fixture.plain_nitro(), appears_as(number, "/dev/vdb")));
    assert_eq!(booted.is_good().status["device"], "/dev/nvme1n1");
    drop(disk);
}

#[test]
fn root_what_the_mapping_names_is_the_volume_or_nothing_is() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let (_disk, other) = foreign("data", "README", "");
    let booted = node(&IMPATIENT).boot(&format!("{}{}/boot-script", appears_as(other, "/dev/xvdk"), fixture.plain_nitro()));
    booted.failed(6, "/dev/xvdk carries the label data, not chef");
    let elsewhere = node(&[&IMPATIENT[..], &["--device", "/dev/sdf"]].concat());
    elsewhere.boot(&format!("{}{}/boot-script", appears_as(other, "/dev/xvdk"), fixture.plain_nitro())).is_good();

    // The user's own filesystem may lack the label.
    let (_disk, unlabelled) = foreign("", ".ebs-bake.json", &manifest(&fixture.commit));
    let booted = node(&IMPATIENT).boot(&(appears_as(unlabelled, "/dev/xvdk") + "/boot-script"));
    booted.failed(
        7,
        "has no cookbooks: none of the directories is there: vendor/cookbooks berks-cookbooks cookbooks site-cookbooks",
    );
}

fn manifest(commit: &str) -> String {
    format!(
        "{{\n  \"format\": 1,\n  \"repository\": \"https://example.com/chef\",\n  \"commit\": \"{commit}\",\n  \"ref\": null\n}}\n"
    )
}

#[test]
fn root_a_filesystem_that_was_not_baked_is_unmounted_again() {
    if !needs_root() {
        return;
    }
    let look_after = "/boot-script; code=$?; ! grep ' /chef ' /proc/self/mounts || exit 99; exit $code";
    let foreign_files = [
        ("README", "hello\n".to_owned()),
        (".ebs-bake.json", manifest("not a commit")),
        (".ebs-bake.json", "{\"commit\": \"0123456789012345678901234567890123456789\"}".to_owned()),
    ];
    for (file, content) in foreign_files {
        let (_disk, number) = foreign("chef", file, &content);
        let booted = node(&IMPATIENT).boot(&(appears_as(number, "/dev/xvdk") + look_after));
        booted.failed(6, "/dev/xvdk at /chef was not baked by ebs-bake: there is no manifest in it");
        assert_eq!(booted.status["commit"], serde_json::Value::Null);
    }
}

#[test]
fn root_xfs_of_the_user_is_mounted_beside_its_copy() {
    let xfs = std::process::Command::new("mkfs.xfs").arg("-V").output().is_ok_and(|output| output.status.success());
    if !needs_root() || !needs(xfs, "mkfs.xfs") {
        return;
    }
    let (one, two) = (Loop::new(320 * MIB), Loop::new(320 * MIB));
    run("mkfs.xfs", &["-q", "-L", "chef", one.device.node().unwrap().path().to_str().unwrap()]);
    let node = node(&IMPATIENT);
    node.write("/manifest", &manifest(&"c".repeat(40)));
    let commands = format!(
        "{}{}mount /dev/xvdk /mnt && mkdir -p /mnt/cookbooks /mnt/roles && cp /manifest /mnt/.ebs-bake.json
echo '{{}}' >/mnt/roles/web.json && umount /mnt
dd if=/dev/xvdk of=/dev/xvdl bs=1M status=none && mount /dev/xvdl /mnt && exec /boot-script",
        appears_as(one.device.number(), "/dev/xvdk"),
        appears_as(two.device.number(), "/dev/xvdl")
    );
    node.boot(&commands).is_good();
}

#[test]
fn root_what_the_commit_lacks_is_said_before_chef_runs() {
    if !needs_root() {
        return;
    }
    // Chef does not look for an environment below the directory.
    let fixture = Fixture::with(&[("environments/eu/test.json", "{\"name\": \"test\"}\n")]);
    let commit = &fixture.commit;
    let other_repository = "has repository file:///";
    let wrong: [(&[&str], i32, &str); 6] = [
        (&["--role", "db"], 7, &format!("commit {commit} has no role db")),
        (&["--role", "web", "--environment", "test"], 7, &format!("commit {commit} has no environment test")),
        (&["--role", "web", "--cookbook-path", "vendor"], 7, &format!("commit {commit} has no cookbooks")),
        (
            &["--role", "web", "--chef-path", "infra"],
            7,
            "none of the directories is there: vendor/cookbooks berks-cookbooks cookbooks site-cookbooks",
        ),
        (&["--role", "web", "--expect-commit", &"0".repeat(40)], 6, &format!("has commit {commit}, not 0000")),
        (&["--role", "web", "--expect-repository", "https://example.com/x.git"], 6, other_repository),
    ];
    for (arguments, code, why) in wrong {
        let node = node(arguments);
        node.boot(&(fixture.xen() + "/boot-script")).failed(code, why);
        assert_eq!(node.chef_calls(), [""; 0], "{arguments:?}");
    }
    let right =
        node(&["--role", "web", "--environment", "_default", "--expect-commit", commit, "--expect-repository", &fixture.url]);
    right.boot(&(fixture.xen() + "/boot-script")).is_good();
}

#[test]
fn root_chef_is_run_again_until_it_ends_well() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let hooks = [
        "--on-success",
        "echo \"it's $BOOT_STATE: $BOOT_ROLE $BOOT_COMMIT\" >/hook",
        "--on-failure",
        "echo \"$BOOT_STATE: $BOOT_MESSAGE\" >/hook; exit 5",
    ];
    let arguments = [&["--role", "web"], &hooks[..]].concat();
    let recovers = node(&arguments);
    recovers.write("/fail", "1\n2\n");
    let booted = recovers.boot(&(fixture.xen() + "/boot-script"));
    assert_eq!(booted.is_good().status["attempts"], 3);
    assert_eq!(recovers.read("/hook"), format!("it's succeeded: web {}\n", fixture.commit));

    let fails = node(&arguments);
    fails.write("/fail", "1\n2\n3\n4\n");
    let booted = fails.boot(&(fixture.xen() + "/boot-script"));
    booted.failed(1, "chef-solo ended with 1 in attempt 3 of 3");
    assert_eq!((&booted.status["attempts"], &booted.status["chef-exit-code"]), (&3.into(), &1.into()));
    assert_eq!(booted.said.matches("chef: a mirror does not answer").count(), 3, "the reason is on the console: {booted:?}");
    assert_eq!(fails.read("/hook"), "failed: chef-solo ended with 1 in attempt 3 of 3\n");
    assert!(booted.said.contains("the command after it ended with 5"), "{booted:?}");

    let reboots = node(&arguments);
    reboots.write("/usr/bin/chef-solo", "#!/bin/sh\nexit 35\n");
    let booted = reboots.boot(&(fixture.xen() + "/boot-script"));
    assert_eq!(booted.is_good().status["chef-exit-code"], 35);

    // What Ruby says when it cannot even start Chef; and what no other attempt changes.
    let trace = "#!/bin/sh\necho 'no such thing (LoadError)'\nfor i in $(seq 60); do printf '\\tfrom /a.rb:%s\\n' $i; done\n";
    for (code, attempts) in [(1, 3_usize), (172, 1)] {
        let unable = node(&["--role", "web"]);
        unable.write("/usr/bin/chef-solo", &format!("{trace}exit {code}\n"));
        let booted = unable.boot(&(fixture.xen() + "/boot-script"));
        booted.failed(1, &format!("chef-solo ended with {code}"));
        assert_eq!(booted.status["attempts"], attempts);
        assert_eq!(booted.said.matches("no such thing (LoadError)").count(), attempts, "{booted:?}");
    }
}

#[test]
fn root_the_first_of_chefs_programs_is_used() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let configured = "--config /var/lib/ebs-bake-boot/solo.rb --json-attributes /var/lib/ebs-bake-boot/node.json";
    let try_with = |arguments: &[&str], programs: &[&str]| {
        let node = Node::without_chef();
        node.write("/boot-script", &script(&[&["--role", "web", "--chef-license", "accept-silent"], arguments].concat()));
        programs.iter().for_each(|program| node.add_chef(program));
        let booted = node.boot(&(fixture.xen() + "/boot-script"));
        (booted, node)
    };
    try_with(&[], &[]).0.failed(2, "Chef is not installed: no chef-solo, chef-client, cinc-solo or cinc-client is found");
    try_with(&["--chef", "chef-solo"], &["/usr/bin/chef-client"]).0.failed(2, "no chef-solo is found");
    let cases: [(&[&str], &[&str], String); 4] = [
        (&[], &["/usr/bin/cinc-client", "/opt/chef/bin/chef-client"], format!("chef-client --local-mode {configured}")),
        (&[], &["/opt/cinc/bin/cinc-client", "/opt/cinc/bin/cinc-solo"], format!("cinc-solo {configured}")),
        (&[], &["/opt/cinc/bin/cinc-client"], format!("cinc-client --local-mode {configured}")),
        (
            &["--chef", "/srv/bin/cinc-client"],
            &["/usr/bin/chef-solo", "/srv/bin/cinc-client"],
            format!("cinc-client --local-mode {configured}"),
        ),
    ];
    for (arguments, programs, called) in cases {
        let (booted, node) = try_with(arguments, programs);
        booted.is_good();
        assert_eq!(node.chef_calls(), [called]);
        let environment = node.read("/var/log/chef-environment");
        assert!(environment.starts_with("HOME=/") && environment.ends_with("\nCHEF_LICENSE=accept-silent\n"), "{environment}");
    }
}

/// Chef starts a service that lives on, and waits until /go is there.
const LONG_RUN: &str = "#!/bin/sh\nsetsid sleep 600 &\n: >/chef-runs\nuntil [ -e /go ]; do sleep 0.05; done\n";

#[test]
fn root_only_one_run_is_at_work_at_a_time() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let stale = "sleep 0 & gone=$!; wait; mkdir /run/ebs-bake-boot.lock.d; echo $gone >/run/ebs-bake-boot.lock.d/owner\n";
    for without_flock in ["", &format!("rm /usr/bin/flock\n{stale}")] {
        let node = node(&["--role", "web"]);
        node.write("/during", LONG_RUN);
        let commands = format!(
            "{}{without_flock}/boot-script & first=$!
until [ -e /chef-runs ]; do sleep 0.05; done
/boot-script; echo \"second: $?\"
grep state /var/lib/ebs-bake-boot/status.json
: >/go; wait $first; echo \"first: $?\"
/boot-script; echo \"third: $?\"",
            fixture.xen()
        );
        let booted = node.boot(&commands);
        for line in ["ebs-bake: another run is at work\nsecond: 4", "\"state\": \"running\"", "first: 0", "third: 0"] {
            assert!(booted.said.contains(line), "{line}: {booted:#?}");
        }
        assert_eq!(node.chef_calls().len(), 2);
    }
}

#[test]
fn root_a_run_that_is_ended_says_so() {
    if !needs_root() {
        return;
    }
    let node = node(&["--role", "web"]);
    let booted = node.boot(
        "/boot-script & script=$!
until grep -q waiting /var/lib/ebs-bake-boot/status.json 2>/dev/null; do sleep 0.05; done
kill -TERM $script; wait $script",
    );
    booted.failed(143, "ended by a signal");
    let booted = node.boot("setpriv --reuid 65534 --clear-groups /boot-script");
    assert_eq!((booted.code, booted.said.as_str()), (3, "ebs-bake: root is needed\n"));
}

#[test]
fn root_running_again_does_the_same_again() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let node = node(&["--role", "web"]);
    let written = || {
        let files = ["/var/lib/ebs-bake-boot/solo.rb", "/var/lib/ebs-bake-boot/node.json", "/var/log/chef-run"];
        files.map(|file| node.read(file))
    };
    let boot = fixture.nitro() + "/boot-script";
    node.boot(&boot).is_good();
    let first = written();
    // Twice in one boot, and in another one.
    let booted = node.boot(&format!("{boot} && /boot-script"));
    assert!(booted.is_good().said.contains("/dev/nvme1n1 is mounted at /chef already"), "{booted:?}");
    assert_eq!(written(), first);
    assert_eq!(node.chef_calls().len(), 3);
    assert!(node.read("/var/log/ebs-bake-boot.log.1").contains("is mounted at /chef now"), "the log of the run before is kept");
    let left = std::fs::read_dir(node.path("/var/lib/ebs-bake-boot")).unwrap().count();
    assert_eq!(left, 3, "solo.rb, node.json, status.json");
}
