use aws_sdk_autoscaling::types::LaunchTemplateSpecification;

use super::super::launch_template::tests::chef;
use super::*;

/// Versions 1 to 9: 1 is the default one, 2 was made by somebody else.
fn template() -> Template {
    let mut template = chef();
    let default = template.default().clone();
    template.versions = vec![default; 9];
    for (number, version) in (1..).zip(&mut template.versions) {
        (version.number, version.is_default, version.is_ours) = (number, number == 1, number != 2);
    }
    template
}

fn pinned(number: i64) -> Launch {
    let spec = LaunchTemplateSpecification::builder().launch_template_id("lt-00000001").version(number.to_string());
    Launch::Template(spec.build())
}

#[test]
fn the_newest_stay_and_what_is_used() {
    let template = template();
    assert_eq!(superfluous(&template, 9, 3, &[]), [3, 4, 5, 6]);
    assert_eq!(superfluous(&template, 4, 3, &[pinned(5)]), [3, 6]);
    assert_eq!(superfluous(&template, 9, 20, &[]), [0; 0]);
    assert_eq!(superfluous(&template, 4, 1, &[]), [3, 5, 6, 7, 8]);
}
