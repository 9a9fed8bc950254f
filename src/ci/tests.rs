use super::*;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn detected(variables: &[(&str, &str)]) -> Ci {
    detect(&variables.iter().copied().collect())
}

/// System, repository, ref and run; the commit must be `SHA`.
fn told(variables: &[(&str, &str)]) -> (System, String, Option<String>, Option<String>) {
    let ci = detected(variables);
    assert_eq!(ci.commit.map(|oid| oid.to_string()).as_deref(), Some(SHA));
    (ci.system.unwrap(), ci.repository.unwrap(), ci.reference, ci.run_url)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn outside_of_ci_nothing_is_known() {
    assert_eq!(detected(&[("CI", "true"), ("GITHUB_SHA", SHA), ("GIT_URL", "https://h/x")]), Ci::default());
}

#[test]
fn github_actions_with_a_pull_request() {
    let ci = detected(&[
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_SERVER_URL", "https://github.example.com"),
        ("GITHUB_REPOSITORY", "acme/chef"),
        ("GITHUB_SHA", SHA),
        ("GITHUB_REF", "refs/pull/1/merge"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_OUTPUT", "/tmp/out"),
        ("GITHUB_STEP_SUMMARY", ""),
    ]);
    assert_eq!(ci.repository, some("https://github.example.com/acme/chef"));
    assert_eq!(ci.reference, some("refs/pull/1/merge"));
    assert_eq!(ci.run_url, some("https://github.example.com/acme/chef/actions/runs/42"));
    assert_eq!(ci.github_output, Some(PathBuf::from("/tmp/out")));
    assert_eq!(ci.step_summary, None);
}

#[test]
fn github_calls_repositories_by_owner_and_name() {
    let ci = |server: &str| detected(&[("GITHUB_ACTIONS", "true"), ("GITHUB_SERVER_URL", server)]);
    assert_eq!(ci("").repository_called("acme/chef-repo.git"), some("https://github.com/acme/chef-repo.git"));
    assert_eq!(ci("https://u:p@ghe.example.com:8443/").repository_called("a_b/c"), some("https://ghe.example.com:8443/a_b/c"));
    for other in ["chef", "acme/", "/chef", "a/b/c", "./chef", "../chef", "acme/..", "git@h:a/b", "a b/c", "https://h/x", "a/b\n"]
    {
        assert_eq!(ci("").repository_called(other), None, "{other}");
    }
    assert_eq!(ci("ext::sh -c id").repository_called("acme/chef"), None);
    assert_eq!(detected(&[("GITLAB_CI", "true")]).repository_called("acme/chef"), None);
}

#[test]
fn gitlab_loses_its_token() {
    let job = [
        ("GITLAB_CI", "true"),
        ("CI_REPOSITORY_URL", "https://gitlab-ci-token:glcbt-64_secret@gitlab.example.com/acme/chef.git"),
        ("CI_COMMIT_SHA", SHA),
        ("CI_COMMIT_REF_NAME", "feature/x"),
        ("CI_PIPELINE_URL", "https://gitlab.example.com/acme/chef/-/pipelines/7"),
    ];
    let url = "https://gitlab.example.com/acme/chef.git".to_owned();
    let run = some("https://gitlab.example.com/acme/chef/-/pipelines/7");
    assert_eq!(told(&job), (System::GitLab, url.clone(), some("refs/heads/feature/x"), run.clone()));
    let login = Login { user: "gitlab-ci-token".into(), password: "glcbt-64_secret".into() };
    assert_eq!(detected(&job).login, Some(login), "it is kept apart");
    let tagged = [&job[..], &[("CI_COMMIT_TAG", "v1")]].concat();
    assert_eq!(told(&tagged).2, some("refs/tags/v1"));
    let request = [&job[..], &[("CI_MERGE_REQUEST_REF_PATH", "refs/merge-requests/3/head")]].concat();
    assert_eq!(told(&request).2, some("refs/merge-requests/3/head"));
}

#[test]
fn jenkins_branches_have_their_remote_before_them_or_not() {
    let job = [
        ("JENKINS_URL", "https://jenkins.example.com/"),
        ("GIT_URL", "git@github.com:acme/chef.git"),
        ("GIT_COMMIT", SHA),
        ("GIT_BRANCH", "origin/release/1"),
        ("BUILD_URL", "https://jenkins.example.com/job/chef/5/"),
    ];
    let run = some("https://jenkins.example.com/job/chef/5/");
    let expected = (System::Jenkins, "git@github.com:acme/chef.git".to_owned(), some("refs/heads/release/1"), run);
    assert_eq!(told(&job), expected);
    let multibranch = [&job[..], &[("BRANCH_NAME", "origin/odd")]].concat();
    assert_eq!(told(&multibranch).2, some("refs/heads/origin/odd"));
    let request = [&job[..], &[("BRANCH_NAME", "PR-1"), ("CHANGE_ID", "1")]].concat();
    assert_eq!(told(&request).2, None);
}

#[test]
fn buildkite_circleci_azure_codebuild_woodpecker_drone() {
    let buildkite = told(&[
        ("BUILDKITE", "true"),
        ("BUILDKITE_REPO", "https://github.com/acme/chef.git"),
        ("BUILDKITE_COMMIT", SHA),
        ("BUILDKITE_BRANCH", "someone:main"),
        ("BUILDKITE_PULL_REQUEST", "9"),
        ("BUILDKITE_BUILD_URL", "https://buildkite.com/acme/chef/builds/3"),
    ]);
    assert_eq!((buildkite.0, buildkite.2), (System::Buildkite, some("refs/pull/9/head")));

    let circle = told(&[
        ("CIRCLECI", "true"),
        ("CIRCLE_REPOSITORY_URL", "git@github.com:acme/chef.git"),
        ("CIRCLE_SHA1", SHA),
        ("CIRCLE_BRANCH", "pull/12"),
        ("CIRCLE_BUILD_URL", "https://circleci.com/gh/acme/chef/3"),
    ]);
    assert_eq!((circle.0, circle.2), (System::CircleCi, some("refs/pull/12/head")));

    let azure = told(&[
        ("TF_BUILD", "True"),
        ("BUILD_REPOSITORY_URI", "https://acme@dev.azure.com/acme/My%20Project/_git/chef"),
        ("BUILD_SOURCEVERSION", SHA),
        ("BUILD_SOURCEBRANCH", "refs/heads/main"),
        ("SYSTEM_COLLECTIONURI", "https://dev.azure.com/acme/"),
        ("SYSTEM_TEAMPROJECT", "My Project"),
        ("BUILD_BUILDID", "77"),
    ]);
    assert_eq!(azure.1, "https://dev.azure.com/acme/My%20Project/_git/chef");
    assert_eq!(azure.3, some("https://dev.azure.com/acme/My%20Project/_build/results?buildId=77"));

    let codebuild = told(&[
        ("CODEBUILD_BUILD_ID", "chef:1"),
        ("CODEBUILD_SOURCE_REPO_URL", "https://github.com/acme/chef.git"),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", SHA),
        ("CODEBUILD_SOURCE_VERSION", "pr/4"),
        ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/theirs"),
    ]);
    assert_eq!((codebuild.0, codebuild.2, codebuild.3), (System::CodeBuild, some("refs/pull/4/head"), None));

    let woodpecker = told(&[
        ("CI", "woodpecker"),
        ("CI_REPO_CLONE_URL", "https://codeberg.org/acme/chef.git"),
        ("CI_COMMIT_SHA", SHA),
        ("CI_COMMIT_REF", "refs/heads/main"),
        ("CI_PIPELINE_URL", "https://ci.codeberg.org/repos/7/pipeline/8"),
    ]);
    assert_eq!((woodpecker.0, woodpecker.2), (System::Woodpecker, some("refs/heads/main")));

    let drone = told(&[
        ("DRONE", "true"),
        ("DRONE_GIT_HTTP_URL", "https://gitea.example.com/acme/chef.git"),
        ("DRONE_COMMIT_SHA", SHA),
        ("DRONE_COMMIT_REF", "refs/tags/v1"),
        ("DRONE_BUILD_LINK", "https://drone.example.com/acme/chef/42"),
    ]);
    assert_eq!((drone.0, drone.2), (System::Drone, some("refs/tags/v1")));
}

#[test]
fn a_user_in_the_url_is_no_login() {
    for url in ["https://acme@dev.azure.com/acme/x/_git/chef", "ssh://git@github.com/acme/chef", "git@github.com:acme/chef.git"] {
        assert_eq!(detected(&[("BUILDKITE", "true"), ("BUILDKITE_REPO", url)]).login, None, "{url}");
    }
}

#[test]
fn hostile_values_are_dropped() {
    let ci = detected(&[
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "acme/chef\n::add-mask::x"),
        ("GITHUB_SHA", "HEAD; rm -rf /"),
        ("GITHUB_REF", "refs/heads/a\n::set-output name=x::y"),
        ("GITHUB_RUN_ID", "1"),
    ]);
    assert_eq!((ci.repository, ci.commit, ci.reference), (None, None, None));
    // The parser of URLs drops newlines as browsers do: what is left is one line and harmless.
    assert!(ci.run_url.is_none_or(|url| !url.contains('\n')));

    let scripted = [("GITLAB_CI", "true"), ("CI_PIPELINE_URL", "javascript:alert(1)"), ("CI_REPOSITORY_URL", "ext::sh -c id")];
    assert_eq!((detected(&scripted).run_url, detected(&scripted).repository), (None, None));
}

#[test]
fn the_same_repository_by_other_protocols() {
    let https = "https://github.com/acme/chef";
    for same in [
        "https://user:password@GitHub.com/acme/chef.git",
        "git@github.com:acme/chef.git",
        "ssh://git@github.com:22/acme/chef/",
        "http://github.com/acme/chef",
    ] {
        assert!(same_repository(https, same), "{same}");
    }
    assert!(!same_repository("http://[::1]/acme/chef", "http://[::2]/acme/chef"));
    for other in ["https://github.com/acme/chef2", "https://github.com.evil.example/acme/chef", "/acme/chef", ".", ""] {
        assert!(!same_repository(https, other), "{other}");
    }
    assert!(!same_repository("/a", "/a"), "paths are not what a CI system tells");
}
