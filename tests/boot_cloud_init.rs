//! cloud-init itself runs what `user-data` prints: at an instance's first boot, at the others, and in an image made from it.
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

use node::{Booted, Fixture, Node, printed};
use support::needs_root;

/// The stages of a boot (cloud-init, "Boot stages").
const STAGES: &str = "for stage in 'init --local' init 'modules --mode=config' 'modules --mode=final'; do
    cloud-init $stage || echo \"failed: $stage\"
done
cat /run/cloud-init/result.json\n";

/// Only what concerns scripts; no network, and no metadata service.
const CONFIGURATION: &str = "datasource_list: [NoCloud]
network: {config: disabled}
cloud_init_modules: []
cloud_config_modules: []
cloud_final_modules: [scripts_per_once, scripts_per_boot, scripts_per_instance, scripts_user]\n";

fn instance(user_data: &[u8]) -> Node {
    let node = Node::new();
    node.write("/etc/cloud/cloud.cfg.d/99-test.cfg", CONFIGURATION);
    name(&node, "i-00000000000000001");
    let seed = "/var/lib/cloud/seed/nocloud/user-data";
    node.write(seed, "");
    std::fs::write(node.path(seed), user_data).unwrap();
    node
}

fn name(node: &Node, id: &str) {
    node.write("/var/lib/cloud/seed/nocloud/meta-data", &format!("instance-id: {id}\nlocal-hostname: node\n"));
}

fn boot(node: &Node, devices: &str) -> Booted {
    node.boot(&format!("{devices}{STAGES}"))
}

#[test]
fn root_user_data_runs_at_the_first_boot_and_at_every_other() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let node = instance(&printed(&["--role", "web"]));
    boot(&node, &fixture.nitro()).is_good();
    assert_eq!(node.chef_calls().len(), 1);
    boot(&node, &fixture.nitro()).is_good();
    assert_eq!(node.chef_calls().len(), 2, "at the second boot it did not run, or ran twice");

    // An instance of an image that was made from this one, with another role: only its own user data runs.
    name(&node, "i-00000000000000002");
    std::fs::write(node.path("/var/lib/cloud/seed/nocloud/user-data"), printed(&["--role", "web", "--environment", "prod"]))
        .unwrap();
    boot(&node, &fixture.nitro()).is_good();
    let calls = node.chef_calls();
    assert_eq!(calls.len(), 3);
    assert!(calls[2].ends_with("--environment prod"), "{calls:?}");
    boot(&node, &fixture.nitro()).is_good();
    assert!(node.chef_calls()[3..].iter().all(|call| call.ends_with("--environment prod")), "{:?}", node.chef_calls());
}

#[test]
fn root_every_format_is_understood() {
    if !needs_root() {
        return;
    }
    let fixture = Fixture::new();
    let beyond_ascii = "echo 'gr\u{fc}\u{df}e \u{65e5}\u{672c}' >/hook";
    let formats: [&[&str]; 4] = [
        &["--format", "mime"],
        &["--format", "gzip"],
        &["--format", "mime", "--on-success", beyond_ascii],
        &["--format", "script", "--on-success", beyond_ascii],
    ];
    for format in formats {
        let node = instance(&printed(&[&["--role", "web"], format].concat()));
        boot(&node, &fixture.nitro()).is_good();
        assert_eq!(node.read("/var/log/chef-run"), "role web\n# base\n# app\n", "{format:?}");
        let hook = if format.contains(&beyond_ascii) { "gr\u{fc}\u{df}e \u{65e5}\u{672c}\n" } else { "" };
        assert_eq!(node.read("/hook"), hook, "{format:?}");
    }
}

#[test]
fn root_cloud_init_is_told_of_a_failure() {
    if !needs_root() {
        return;
    }
    let node = instance(&printed(&["--role", "web", "--device-timeout", "1s"]));
    let booted = boot(&node, "");
    assert_eq!(booted.status["state"], "failed", "{booted:#?}");
    assert!(booted.said.contains("failed: modules --mode=final"), "{booted:#?}");
    assert!(booted.said.contains("scripts_user"), "result.json has the module that failed: {booted:#?}");
}
