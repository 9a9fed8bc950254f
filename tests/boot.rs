//! Nodes boot from really baked volumes: the script that `user-data` prints, in a root filesystem of Debian's.
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

use std::collections::BTreeMap;

use node::{Fixture, node, script};
use support::needs_root;

const RAN_WEB: &str = "role web\n# base\n# app\n";
const SOLO: &str = "/var/lib/ebs-bake-boot/solo.rb";

#[test]
fn root_a_node_runs_its_role_of_the_baked_commit() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let by_label = "mkdir -p /dev/disk/by-label && ln -s ../../vdb /dev/disk/by-label/chef\n";
    let layouts = [
        ("/dev/nvme1n1", fixture.nitro()),
        ("/dev/nvme1n1", fixture.plain_nitro()),
        ("/dev/xvdk", fixture.xen()),
        ("/dev/vdb", fixture.volume.appears_as("/dev/vdb") + by_label),
        ("/dev/vdb", fixture.volume.appears_as("/dev/vdb")),
    ];
    for (device, layout) in layouts {
        let node = node(&["--role", "web", "--environment", "prod"]);
        node.write("/during", "#!/bin/sh\ngrep ' /chef ' /proc/self/mounts >/var/log/mount\n");
        let booted = node.boot(&(layout + "exec /boot-script"));
        booted.is_good();
        let status = &booted.status;
        assert_eq!((&status["device"], &status["commit"]), (&device.into(), &fixture.commit.as_str().into()), "{status}");
        assert_eq!((&status["role"], &status["environment"]), (&"web".into(), &"prod".into()));
        assert_eq!((&status["attempts"], &status["chef-exit-code"]), (&1.into(), &0.into()));
        assert_eq!(
            node.chef_calls(),
            [format!("chef-solo --config {SOLO} --json-attributes /var/lib/ebs-bake-boot/node.json --environment prod")]
        );
        assert_eq!(node.read("/var/log/chef-run"), "role web\n{\"name\": \"prod\"}\n# base\n# app\n");
        let mount = node.read("/var/log/mount");
        let options = mount.split(' ').nth(3).unwrap_or_default();
        for option in ["ro", "noatime", "nosuid", "nodev"] {
            assert!(options.split(',').any(|has| has == option), "{option}: {mount}");
        }
        assert_eq!(node.mode("/var/lib/ebs-bake-boot"), 0o700);
        for file in ["solo.rb", "node.json", "status.json"] {
            assert_eq!(node.mode(&format!("/var/lib/ebs-bake-boot/{file}")), 0o600, "{file}");
        }
        assert_eq!(node.mode("/var/log/ebs-bake-boot.log"), 0o600);
    }
}

#[test]
fn root_every_shell_and_its_tools_will_do() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let only_busybox = "mkdir /run/busybox && busybox --install -s /run/busybox && export PATH=/run/busybox:$PATH\n";
    for (shell, before) in [("dash", ""), ("bash", ""), ("busybox sh", ""), ("busybox sh", only_busybox)] {
        for layout in [fixture.xen(), fixture.volume.appears_as("/dev/vdb")] {
            let node = node(&["--role", "web"]);
            node.boot(&format!("{layout}{before}{shell} /boot-script")).is_good();
            assert_eq!(node.read("/var/log/chef-run"), RAN_WEB, "{shell}");
            node.boot(&format!("{before}{}{shell} /boot-script", missing())).failed(6, "no volume after 1 s");
        }
    }
}

/// Makes a node that waits for its device do that for a second only.
fn missing() -> String {
    "sed -i \"s/^device_timeout=.*/device_timeout=1/\" /boot-script\n".into()
}

#[test]
fn root_what_chef_is_told_is_off_the_volume_and_only_what_is_there() {
    if !needs_root() {
        return;
    }
    let files = [
        ("site-cookbooks/app/recipes/default.rb", "# of the site\n"),
        ("vendor/cookbooks/x/recipes/default.rb", ""),
        ("roles/back/db.json", "{\"name\": \"db\"}\n"),
    ];
    let fixture = Fixture::with(&files);
    let node = node(&["--role", "web"]);
    node.boot(&(fixture.xen() + "exec /boot-script")).is_good();
    let expected = "# Written by ebs-bake at every boot.
chef_repo_path \"/var/chef\"
cookbook_path [\"/chef/site-cookbooks\", \"/chef/cookbooks\", \"/chef/vendor/cookbooks\"]
role_path Dir.glob(\"/chef/roles/**/\").sort
environment_path \"/chef/environments\"
node_path \"/var/chef/nodes\"
cache_path \"/var/chef\"
file_cache_path \"/var/chef/cache\"
file_backup_path \"/var/chef/backup\"
";
    assert_eq!(node.read(SOLO), expected);
    assert_eq!(node.read("/var/lib/ebs-bake-boot/node.json"), "{\"run_list\": [\"role[web]\"]}\n");
    assert!(node.path("/var/chef/nodes/node.json").exists(), "Chef could not write");
    assert_eq!(node.read("/var/log/chef-run"), "role web\n# base\n# of the site\n", "the last copy counts");

    // What Chef itself makes of it, defaults included.
    node.write("/settings.rb", SETTINGS);
    let settings = node.boot(&(fixture.xen() + "mount -o ro /dev/xvdk /chef && ruby /settings.rb"));
    let settings: BTreeMap<String, Vec<String>> = serde_json::from_str(&settings.said).expect(&settings.said);
    let read = ["cookbook_path", "role_path", "environment_path"];
    for (name, paths) in &settings {
        let on_the_volume = paths.iter().all(|path| path.starts_with("/chef/"));
        assert_eq!(on_the_volume, read.contains(&name.as_str()), "{name}: {paths:?}");
    }
    assert_eq!(settings["role_path"], ["/chef/roles", "/chef/roles/back"], "local mode does not look below a directory");
    assert!(settings.len() > 15 && read.iter().all(|name| settings.contains_key(*name)), "{settings:?}");
}

/// All paths of Chef's configuration in local mode, as JSON.
const SETTINGS: &str = "require 'chef-config/config'
require 'json'
config = ChefConfig::Config
config[:config_file] = '/var/lib/ebs-bake-boot/solo.rb'
config[:local_mode] = true
config.from_file(config[:config_file])
names = config.save(true).keys.select { |name| name.to_s =~ /_(path|dir)$/ || name == :lockfile }
puts names.map { |name| [name, Array(config[name])] }.select { |_, paths| paths.any? && paths.all?(String) }.to_h.to_json
";

#[test]
fn root_a_repository_may_keep_things_elsewhere() {
    if !needs_root() {
        return;
    }
    let files = [
        ("infra/chef/site-cookbooks/app/recipes/default.rb", "# site app\n"),
        ("infra/chef/vendor/cookbooks/base/recipes/default.rb", "# vendored base\n"),
        ("infra/chef/roles/front/web.json", "{\"name\": \"web\"}\n"),
        ("infra/chef/data_bags/users/a.json", "{}\n"),
    ];
    let fixture = Fixture::with(&files);
    let paths = ["--cookbook-path", "vendor/cookbooks", "--cookbook-path", "site-cookbooks", "--cookbook-path", "absent"];
    let node = node(&[&["--role", "web", "--chef-path", "infra/chef", "--mount-point", "/srv/chef"], &paths[..]].concat());
    node.write("/usr/bin/chef-solo", "#!/bin/sh\n");
    node.boot(&(fixture.xen() + "exec /boot-script")).is_good();
    let solo = node.read(SOLO);
    assert!(
        solo.contains("cookbook_path [\"/srv/chef/infra/chef/site-cookbooks\", \"/srv/chef/infra/chef/vendor/cookbooks\"]\n"),
        "{solo}"
    );
    assert!(solo.contains("data_bag_path \"/srv/chef/infra/chef/data_bags\"\n"), "{solo}");
    assert!(!solo.contains("environment_path"), "{solo}");
}

/// Downloads an installer that installs an empty program.
const FAKE_INSTALLER: &str = "#!/bin/sh
while [ \"$1\" != --output ]; do shift; done
echo 'echo \"$@\" >>/installed; echo >/usr/local/bin/cinc-client; chmod +x /usr/local/bin/cinc-client' >\"$2\"
";

#[test]
fn root_what_fstab_mounted_is_used_and_stays() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let node = node(&["--role", "web"]);
    // The image of the example, but for what it downloads.
    node.write("/provision", &std::fs::read_to_string("examples/packer/provision.sh").unwrap());
    node.write("/usr/local/bin/apt-get", "#!/bin/sh\n");
    node.write("/usr/local/bin/cloud-init", "#!/bin/sh\n");
    node.write("/usr/local/bin/curl", FAKE_INSTALLER);
    let twice = "export CINC_VERSION=18 PATH=/usr/local/bin:$PATH; /provision && /provision && cat /etc/fstab";
    let provisioned = node.boot(twice);
    assert!(provisioned.said.ends_with(&script(&["--fstab"])), "{provisioned:?}");
    assert_eq!(
        (provisioned.said.matches("LABEL=chef").count(), node.read("/installed").as_str()),
        (1, "-v 18\n"),
        "{provisioned:?}"
    );

    node.write("/during", "#!/bin/sh\ngrep -c ' /chef ' /proc/self/mounts >/var/log/mount\n");
    let mounted =
        node.boot(&(fixture.plain_nitro() + "mkdir -p /chef && mount /chef && /boot-script && grep /chef /proc/mounts"));
    mounted.is_good();
    assert!(mounted.said.contains("mounted at /chef already"), "{mounted:?}");
    assert!(mounted.said.contains(" ro,nosuid,nodev,noatime 0 0"), "fstab's mount has other options: {mounted:?}");
    assert_eq!(node.read("/var/log/mount"), "1\n");

    // fstab has the line, but its mount has not come yet.
    node.boot(&(fixture.plain_nitro() + "exec /boot-script")).is_good();
    assert_eq!(node.read("/var/log/mount"), "1\n");
}
