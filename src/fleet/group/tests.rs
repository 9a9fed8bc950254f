use aws_sdk_autoscaling::types::{Instance, InstancesDistribution, LaunchTemplate, LaunchTemplateOverrides};

use super::super::launch_template::tests::chef;
use super::*;

fn spec(id: &str, version: &str) -> LaunchTemplateSpecification {
    let builder = LaunchTemplateSpecification::builder().launch_template_id(id).launch_template_name("chef");
    if version.is_empty() { builder.build() } else { builder.version(version).build() }
}

fn ours(version: &str) -> LaunchTemplateSpecification {
    spec("lt-00000001", version)
}

fn machine(state: &str, from: LaunchTemplateSpecification) -> Instance {
    Instance::builder().lifecycle_state(state.into()).launch_template(from).build()
}

fn group(launch: LaunchTemplateSpecification, machines: &[Instance]) -> Group {
    let builder = AutoScalingGroup::builder().auto_scaling_group_name("web").launch_template(launch);
    Group::of(builder.set_instances(Some(machines.to_vec())).build()).unwrap()
}

fn policy(own: LaunchTemplateSpecification, overrides: &[LaunchTemplateSpecification]) -> MixedInstancesPolicy {
    let overrides = overrides.iter().map(|spec| {
        LaunchTemplateOverrides::builder().instance_type("c6g.large").launch_template_specification(spec.clone()).build()
    });
    let template = LaunchTemplate::builder().launch_template_specification(own).set_overrides(Some(overrides.collect())).build();
    let distribution = InstancesDistribution::builder().on_demand_base_capacity(1).build();
    MixedInstancesPolicy::builder().launch_template(template).instances_distribution(distribution).build()
}

#[test]
fn only_what_is_pinned_is_moved() {
    let chef = chef();
    let target = Target::Template(&chef, 4);
    let moved = |version: &str| group(ours(version), &[]).moved(target);
    assert_eq!(moved("1"), Some(Launch::Template(ours("4"))));
    for version in ["4", "$Latest", "$Default", ""] {
        assert_eq!(moved(version), None, "{version}");
    }
    assert_eq!(group(spec("lt-00000009", "1"), &[]).moved(target), None);
    assert_eq!(group(ours(""), &[]).versions_of(&chef), [VersionChoice::Default], "without a version, the default is meant");
}

#[test]
fn of_a_policy_all_that_is_ours_is_moved_and_nothing_else() {
    let chef = chef();
    let of = |own, overrides: &[_]| Group {
        name: "web".into(),
        launch: Launch::Mixed(Box::new(policy(own, overrides))),
        instances: Vec::new(),
    };
    let other = || spec("lt-00000009", "1");
    let moved = of(ours("1"), &[ours("2"), other(), ours("$Latest")]).moved(Target::Template(&chef, 4));
    assert_eq!(moved, Some(of(ours("4"), &[ours("4"), other(), ours("$Latest")]).launch));
    let mixed = of(other(), &[ours("2")]);
    assert_eq!(mixed.versions_of(&chef), [VersionChoice::Number(2)]);
    assert_eq!(mixed.others_than(&chef), ["chef"]);
}

#[test]
fn one_of_id_and_name_is_handed_in() {
    let launch = Launch::Mixed(Box::new(policy(ours("1"), &[ours("2")]))).as_request();
    assert_eq!(launch.specifications().len(), 2);
    for spec in launch.specifications() {
        assert_eq!((spec.launch_template_id(), spec.launch_template_name()), (Some("lt-00000001"), None));
    }
    let by_name = LaunchTemplateSpecification::builder().launch_template_name("chef").build();
    assert_eq!(Launch::Template(by_name.clone()).as_request(), Launch::Template(by_name));
}

#[test]
fn machines_that_were_launched_from_something_else_are_stale() {
    let chef = chef();
    let machines = [
        machine("InService", ours("4")),
        machine("InService", ours("1")),
        machine("Pending:Wait", ours("1")),
        machine("Terminating:Wait", ours("1")),
        machine("Terminated", ours("1")),
        machine("Detached", ours("1")),
        machine("Standby", spec("lt-00000009", "4")),
        Instance::builder().lifecycle_state("InService".into()).launch_configuration_name("old").build(),
    ];
    let web = group(ours("4"), &machines);
    assert_eq!(web.stale(Target::Template(&chef, 4)), 4);
    assert_eq!(web.stale(Target::Configuration("old")), 4);
    let mixed = Group { launch: Launch::Mixed(Box::new(policy(ours("4"), &[spec("lt-00000009", "4")]))), ..web };
    assert_eq!(mixed.stale(Target::Template(&chef, 4)), 3, "what the policy's other template launched is not ours to judge");
}

#[test]
fn a_configuration_is_replaced_by_name() {
    let of = AutoScalingGroup::builder().auto_scaling_group_name("web").launch_configuration_name("old").build();
    let web = Group::of(of).unwrap();
    assert_eq!(web.configuration(), Some("old"));
    assert_eq!(web.moved(Target::Configuration("new")), Some(Launch::Configuration("new".into())));
    assert_eq!(web.moved(Target::Configuration("old")), None);
    assert_eq!(web.moved(Target::Template(&chef(), 4)), None);
}
