//! Ruby files of a chef-repo, whose lines are also taken for entries of run lists and for versions.
#![no_main]

use ebs_bake::chef::objects::{self, Source};
use ebs_bake::chef::ruby::Script;
use ebs_bake::chef::run_list::{self, Item};
use ebs_bake::chef::version::{Constraint, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(script) = Script::read(text) {
        let lines = text.lines().count() as u32 + 1;
        assert!(script.calls.iter().all(|call| (1..=lines).contains(&call.line)));
        let mut findings = Default::default();
        objects::role("roles/web.rb", Source::Ruby(&script), &mut findings);
        objects::environment("environments/prod.rb", Source::Ruby(&script), &mut findings);
        objects::metadata("cookbooks/a/metadata.rb", Source::Ruby(&script), &mut findings);
    }
    for line in text.lines() {
        match run_list::parse(line) {
            Some(Item::Role(name)) => assert!(!name.is_empty() && line == format!("role[{name}]")),
            Some(Item::Recipe { cookbook, recipe, .. }) => assert!(!cookbook.is_empty() && !recipe.is_empty()),
            None => {}
        }
        let version = Version::parse(line);
        if let (Some(constraint), Some(version)) = (Constraint::parse(line), version) {
            assert!(constraint.allows(version), "a version alone means itself");
        }
    }
});
