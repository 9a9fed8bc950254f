//! Tekton: the task that docs/ci.md shows (`pkg/entrypoint` of tektoncd/pipeline).

use std::fs;
use std::os::unix::fs::symlink;

use serde_yaml::Value;

use crate::checks::code_blocks;
use crate::ci_host::{BRANCH, CiHost, MESSAGE, Step, TOKEN, Variables, example, variables};
use crate::store::needs_root;
use crate::yaml::{list, replaced, string};

#[test]
fn root_tekton_has_the_id_as_its_result() {
    if !needs_root() {
        return;
    }
    let ci = CiHost::new();
    let [task] = code_blocks(&fs::read_to_string(example("docs/ci.md")).unwrap(), "yaml").try_into().unwrap();
    let task: Value = serde_yaml::from_str(&task).unwrap();
    let [step] = list(&task["spec"]["steps"]) else { panic!("one step is expected") };
    assert_eq!((&step["image"], &step["securityContext"]["privileged"]), (&"ebs-bake".into(), &true.into()));

    let result = ci.host.text("result");
    let known = variables([
        ("params.repository", &ci.url()),
        ("params.commit", &ci.commit),
        // What a trigger could add.
        ("params.branch", BRANCH),
        ("params.message", MESSAGE),
        ("results.snapshot-id.path", &result),
    ]);
    let declared = |kind: &str, it: &Value| format!("{kind}.{}", string(&it["name"]));
    assert!(list(&task["spec"]["params"]).iter().all(|it| known.contains_key(&declared("params", it))));
    assert!(list(&task["spec"]["results"]).iter().all(|it| known.contains_key(&format!("{}.path", declared("results", it)))));

    let expanded = |text: &Value| replaced(&string(text), "$(", ")", |name| known.get(name).cloned());
    let value = |it: &Value| if it.get("valueFrom").is_some() { TOKEN.to_owned() } else { expanded(&it["value"]) };
    let mut environment: Variables = list(&step["env"]).iter().map(|it| (string(&it["name"]), value(it))).collect();
    environment.extend(ci.container_variables());
    symlink(env!("CARGO_BIN_EXE_ebs-bake"), ci.host.path("bin/ebs-bake")).unwrap();
    let shell = vec!["sh".to_owned(), "-c".to_owned()];
    ci.succeeds(&[Step { shell, script: expanded(&step["script"]), variables: environment, on_failure: false }]);

    let [snapshot] = ci.host.snapshots().try_into().unwrap();
    assert_eq!(fs::read_to_string(result).unwrap(), snapshot["snapshot-id"].as_str().unwrap(), "without a line feed");
    assert_eq!(snapshot["commit"], ci.commit.as_str());
    ci.assert_nothing_left(1);
}
