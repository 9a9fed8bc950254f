use super::*;
use crate::config::rollout::{Choice, Configurations, Fleet, Mapping, Refresh, Rollout, Template, VersionChoice};

fn rollout(arguments: &str) -> Rollout {
    match Here::new("", &[]).parse(&format!("rollout {arguments}")).command {
        Ok(Command::Rollout(rollout)) => *rollout,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rollout_is_for_one_template_unless_more_is_said() {
    let plain = rollout("--snapshot-id snap-00000001 --launch-template chef");
    assert_eq!((plain.choice, plain.volume_name.as_str()), (Choice::Id("snap-00000001".parse().unwrap()), "chef"));
    let mapping = Mapping {
        device: "/dev/sdk".into(),
        kind: None,
        size_gib: None,
        iops: None,
        throughput: None,
        initialization_rate: None,
        delete_on_termination: true,
    };
    let template = Template { name: "chef".into(), source: None, set_default: false, keep: None };
    let expected = Fleet {
        template: Some(template),
        configurations: None,
        groups: Vec::new(),
        mapping,
        refresh: None,
        wait: true,
        wait_timeout: Duration::from_secs(3600),
    };
    assert_eq!(plain.fleet, expected);

    let more = rollout(
        "--latest --launch-template chef --source-version $Latest --keep-versions 5 --auto-scaling-group web --auto-scaling-group \
         api --launch-configuration-prefix old --delete-unused-configurations --refresh --refresh-min-healthy 50 \
         --refresh-checkpoints 10,100 --refresh-checkpoint-delay 5m --no-wait --fleet-keep-volumes",
    );
    assert_eq!((more.choice, more.fleet.groups), (Choice::Latest, vec!["web".to_owned(), "api".into()]));
    let template = more.fleet.template.unwrap();
    assert_eq!((template.source, template.keep), (Some(VersionChoice::Latest), Some(5)));
    assert_eq!(more.fleet.configurations, Some(Configurations { prefix: "old".into(), delete_unused: true }));
    let refresh = Refresh {
        min_healthy: Some(50),
        checkpoints: vec![10, 100],
        checkpoint_delay: Some(Duration::from_secs(300)),
        ..Refresh::default()
    };
    assert_eq!(more.fleet.refresh, Some(refresh));
    assert!(!more.fleet.wait && !more.fleet.mapping.delete_on_termination);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |arguments: &str| Here::new("", &[]).refusal(&format!("rollout {arguments}")).0;
    for (arguments, words) in [
        ("--launch-template chef", "which snapshot"),
        ("--latest --previous --launch-template chef", "exclude each other"),
        ("--latest", "where to roll out"),
        ("--latest --auto-scaling-group web", "where to roll out"),
        ("--latest --launch-configuration-prefix p", "a group is needed"),
        ("--latest --launch-template chef --refresh", "no group"),
        ("--latest --launch-template chef --device /dev/sdm", "no option --device"),
        ("--latest --launch-template chef --auto-scaling-group a --auto-scaling-group a", "named twice"),
        ("--latest --launch-template chef --source-version $latest", "$Default, $Latest or the number"),
        (
            "--latest --launch-template chef --auto-scaling-group a --refresh --refresh-max-healthy 110",
            "needs --refresh-min-healthy",
        ),
        (
            "--latest --launch-template chef --auto-scaling-group a --refresh --refresh-min-healthy 50 --refresh-max-healthy 151",
            "more than 100 apart",
        ),
        (
            "--latest --launch-template chef --auto-scaling-group a --refresh --refresh-checkpoint-delay 1m",
            "needs --refresh-checkpoints",
        ),
        ("--latest --launch-template chef --refresh-min-healthy 101", "101"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(words), "{arguments}: {message}");
    }
}

#[test]
fn a_bake_rolls_out_only_if_it_is_told_to() {
    let yaml = "launch-template: chef\nauto-scaling-group: web\nwait-timeout: 2h\n";
    assert_eq!(Here::new(yaml, &[]).bake("--repository /srv/chef").rollout, None);
    let fleet = Here::new(yaml, &[]).bake("--repository /srv/chef --rollout").rollout.unwrap();
    assert_eq!((fleet.groups, fleet.wait_timeout), (vec!["web".to_owned()], Duration::from_secs(7200)));
    let refused = |arguments: &str| Here::new(yaml, &[]).refusal(&format!("bake --repository /srv/chef --rollout {arguments}")).0;
    assert!(refused("--no-wait").contains("only a completed snapshot"));
    assert!(refused("--store local").contains("is for EC2"));
}
