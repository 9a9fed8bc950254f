//! Each rule of the checks, both ways: what breaks it is found at its place, and what keeps it is let alone.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/chef_repo.rs"]
mod chef_repo;

use std::fs;

use chef_repo::{GOOD, NONE, Repo, found, shown};
use ebs_bake::chef::read::Place;

/// The same with some files more, or others instead.
fn with(files: &[(&str, &str)]) -> Vec<String> {
    found(&[&GOOD, files].concat())
}

#[test]
fn a_good_repository_has_no_findings() {
    let repo = Repo::new(&GOOD);
    repo.write(
        "environments/prod.json",
        r#"{"name": "prod", "cookbook_versions": {"nginx": "~> 1.2", "other": "= 5.0"}} // comment"#,
    );
    repo.write("data_bags/users/bob.json", r#"{"id": "bob"}"#);
    repo.write("nodes/n1.json", r#"{"run_list": ["role[web]", "nginx::default"]}"#);
    let checked = repo.checked(&Place::default());
    assert_eq!(shown(&checked), NONE);
    assert_eq!(checked.extent, "1 cookbook, 1 role, 1 environment, 1 node, 1 data bag item");
    assert_eq!((checked.errors, checked.warnings), (0, 0));
}

#[test]
fn every_kind_of_json_must_be_an_object_that_chef_can_read() {
    for file in ["roles/x.json", "environments/x.json", "data_bags/b/x.json", "nodes/x.json", "policies/x.json", "dna.json"] {
        assert_eq!(
            with(&[(file, "{\n  \"id\": \"x\"\n  \"y\": 1\n}")]),
            [format!("error {file}:3: no valid JSON: column 3: ',' or '}}' is expected")]
        );
        assert_eq!(with(&[(file, "[]")]), [format!("error {file}:1: a JSON object is expected")]);
        assert_eq!(with(&[(file, "/* x */ {\"id\": \"x\"}")]), NONE);
    }
    let metadata = "cookbooks/nginx/metadata.json";
    assert_eq!(with(&[(metadata, "")]), [format!("error {metadata}:1: no valid JSON: column 1: the file is empty")]);
    // JSON that is none of Chef's is nobody's business.
    let others = [
        "tsconfig.json",
        "data_bags/x.json",
        "data_bags/b/c/x.json",
        "cookbooks/nginx/files/x.json",
        "roles/x.json.erb",
        "nodes/.x.json",
    ];
    assert_eq!(with(&others.map(|file| (file, "{,}"))), NONE);
}

#[test]
fn roles_and_recipes_of_a_run_list_must_be_there() {
    let role = "run_list 'role[db]',\n  'recipe[ngin]',\n  'recipe[nginx::source]',\n  'nginx::defaul'\n";
    let expected = [
        "error roles/a.rb:1: there is no role \"db\"",
        "error roles/a.rb:2: there is no cookbook \"ngin\" (did you mean \"nginx\"?)",
        "error roles/a.rb:3: cookbook \"nginx\" has no recipe \"source\"",
        "error roles/a.rb:4: cookbook \"nginx\" has no recipe \"defaul\" (did you mean \"default\"?)",
    ];
    assert_eq!(with(&[("roles/a.rb", role)]), expected);
    let json = "{\"run_list\": [\"role[db]\",\n\"recipe[ngin]\",\n\"recipe[nginx::source]\",\n\"nginx::defaul\"]}";
    for file in ["roles/a.json", "nodes/a.json", "policies/a.json", "node.json"] {
        assert_eq!(with(&[(file, json)]), expected.map(|finding| finding.replace("roles/a.rb", file)));
    }
    let others = [
        ("roles/db.json", r#"{"recipes": "recipe[nginx::source]"}"#),
        ("roles/sub/ngin.rb", ""),
        ("site-cookbooks/ngin/recipes/default.rb", ""),
        ("cookbooks/nginx/recipes/source.yml", ""),
        ("cookbooks/nginx/recipes/deep/defaul.json", ""),
    ];
    assert_eq!(with(&[&[("roles/a.rb", role)], &others[..]].concat()), NONE);
}

#[test]
fn run_lists_of_environments_count_and_what_is_replaced_does_not() {
    let ruby = "run_list 'role[gone]'\nenv_run_lists 'gone' => ['role[gone]'], '_default' => []\nenv_run_lists 'prod' => ['role[x]'], '_default' => %w(role[y])\nenv_run_lists_add 'test' => 'role[z]'\n";
    let expected = ["x", "y", "z"].map(|role| format!("there is no role {role:?}"));
    let messages = |found: Vec<String>| found.iter().map(|it| it.split(": ").nth(1).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(messages(with(&[("roles/a.rb", ruby)])), expected);
    let json =
        r#"{"run_list": ["role[gone]"], "run_list": ["role[x]"], "env_run_lists": {"prod": ["role[y]"], "test": ["role[z]"]}}"#;
    assert_eq!(messages(with(&[("roles/a.json", json)])), expected);
    let policy = r#"{"run_list": ["role[x]"], "named_run_lists": {"n": ["role[y]", "role[z]"]}}"#;
    assert_eq!(messages(with(&[("policies/a.json", policy)])), expected);
    let without = with(&[("roles/a.rb", "env_run_lists 'prod' => []")]);
    assert_eq!(without, ["error roles/a.rb:1: env_run_lists must have a list for \"_default\""]);
    assert_eq!(with(&[("roles/a.rb", "run_list 'role[x]'\nrun_list LIST"), ("roles/b.rb", "env_run_lists X => []")]), NONE);
}

#[test]
fn entries_of_run_lists_have_a_form() {
    for bad in
        ["Recipe[nginx]", "recipe[nginx", "recipe[nginx@1]", "recipe[nginx], recipe[nginx]", "roles[web]", "::x", "recipe[]", ""]
    {
        let message = format!("error roles/a.json:1: {bad:?} is no entry of a run list, such as \"recipe[x::y]\" or \"role[x]\"");
        assert_eq!(with(&[("roles/a.json", &format!("{{\"run_list\": [{bad:?}]}}"))]), [message]);
    }
    for good in [
        "recipe[nginx]",
        "recipe[nginx@1.2.3]",
        "nginx@1.2.3",
        "nginx",
        "nginx::default",
        "recipe[nginx::default@1.2.3]",
        "role[web]",
    ] {
        assert_eq!(with(&[("roles/a.json", &format!("{{\"run_list\": [{good:?}]}}"))]), NONE, "{good}");
    }
    let expected = ["error roles/a.json:1: an entry of a run list must be a string"];
    assert_eq!(with(&[("roles/a.json", r#"{"run_list": [1, {"type": "recipe", "name": "x"}]}"#)]), expected);
    assert_eq!(with(&[("roles/a.json", r#"{"run_list": {}}"#)]), ["error roles/a.json:1: a run list must be an array"]);
    assert_eq!(with(&[("roles/a.json", r#"{"run_list": null}"#)]), NONE);
}

#[test]
fn versions_in_run_lists_must_be_the_cookbooks() {
    let node = |entry: &str| with(&[("nodes/a.json", &format!("{{\"run_list\": [{entry:?}]}}"))]);
    let expected = ["error nodes/a.json:1: cookbook \"nginx\" is asked for in version 1.3.0, it is 1.2.3"];
    assert_eq!(node("recipe[nginx@1.3]"), expected);
    assert_eq!(node("recipe[nginx@1.2.3]"), NONE);
}

#[test]
fn roles_that_include_themselves_are_shown_with_the_way() {
    let role = |name: &str, list: &str| (format!("roles/{name}.rb"), format!("run_list {list}\n"));
    let roles = [role("a", "'role[b]'"), role("b", "'role[c]', 'role[web]'"), role("c", "'role[a]', 'role[web]'")];
    let files: Vec<(&str, &str)> = roles.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    assert_eq!(with(&files), ["warning roles/c.rb:1: role \"a\" includes itself: a → b → c → a"]);
    assert_eq!(with(&files[..2]), ["error roles/b.rb:1: there is no role \"c\""]);
    assert_eq!(with(&[("roles/a.rb", "run_list 'role[a]'")]), ["warning roles/a.rb:1: role \"a\" includes itself: a → a"]);
    // Twice, but not in a circle.
    assert_eq!(with(&[("roles/a.rb", "run_list %w(role[web] role[b])"), ("roles/b.rb", "run_list %w(role[web])")]), NONE);
}

#[test]
fn a_circle_must_be_one_in_a_single_environment() {
    let prod = "env_run_lists '_default' => [], 'prod' => ['role[b]']";
    let test = "env_run_lists '_default' => [], 'test' => ['role[a]']";
    assert_eq!(with(&[("roles/a.rb", prod), ("roles/b.rb", test)]), NONE);
    let always = "run_list 'role[a]'";
    let expected = ["warning roles/b.rb:1: role \"a\" includes itself in environment \"prod\": a → b → a"];
    assert_eq!(with(&[("roles/a.rb", prod), ("roles/b.rb", always)]), expected);
    // In all environments, and told once.
    let expected = ["warning roles/b.rb:1: role \"a\" includes itself: a → b → a"];
    assert_eq!(with(&[("roles/a.rb", "run_list 'role[b]'"), ("roles/b.rb", always), ("roles/c.rb", test)]), expected);
}

#[test]
fn dependencies_must_be_there_in_a_version_that_will_do() {
    let cookbook = |needs: &str| with(&[("cookbooks/app/metadata.rb", &format!("name 'app'\n{needs}\n"))]);
    assert_eq!(
        cookbook("depends 'ngin'"),
        [
            "error cookbooks/app/metadata.rb:2: cookbook \"app\" depends on \"ngin\", which is not in the repository (did you mean \"nginx\"?)"
        ]
    );
    for good in [
        "",
        ", '>= 1.2'",
        ", '>= 1.2.3'",
        ", '~> 1.2'",
        ", '~> 1.2.1'",
        ", '= 1.2.3'",
        ", '1.2.3'",
        ", '> 1'",
        ", '<2.0'",
        ", '<= 1.2.3'",
        ", ['> 1.0']",
        ", VERSION",
    ] {
        assert_eq!(cookbook(&format!("depends 'nginx'{good}")), NONE, "{good}");
    }
    for bad in [">= 1.3", "~> 1.1.0", "~> 2.0", "= 1.2", "1.2.4", "> 1.2.3", "< 1.2.3", "<= 1", "~> 2"] {
        let message =
            format!("error cookbooks/app/metadata.rb:2: cookbook \"nginx\" is asked for in version {bad:?}, it is 1.2.3");
        assert_eq!(cookbook(&format!("depends 'nginx', '{bad}'")), [message]);
    }
    let json = |needs: &str| with(&[("cookbooks/app/metadata.json", &format!("{{\"dependencies\": {{{needs}}}}}"))]);
    assert_eq!(
        json("\"nginx\": \">= 1.3.0\",\n\"x\": []"),
        [
            "error cookbooks/app/metadata.json:1: cookbook \"nginx\" is asked for in version \">= 1.3.0\", it is 1.2.3",
            "error cookbooks/app/metadata.json:2: cookbook \"app\" depends on \"x\", which is not in the repository"
        ]
    );
    // Of two constraints in JSON Chef takes none, and what it cannot read there it lets pass.
    assert_eq!(json(r#""nginx": [">= 2.0", "< 1.0"]"#), NONE);
    assert_eq!(json(r#""nginx": "never""#), NONE);
}

#[test]
fn what_metadata_says_must_have_a_form() {
    let cookbook = |line: &str| with(&[("cookbooks/app/metadata.rb", &format!("name 'app'\n{line}\n"))]);
    for bad in [">> 1.0", "=> 1.0", "one", ">=", "1.0 "] {
        let message =
            format!("error cookbooks/app/metadata.rb:2: {bad:?} is no version constraint, such as \"~> 1.2\" or \"= 1.2.3\"");
        assert_eq!(cookbook(&format!("depends 'nginx', '{bad}'")), [message]);
    }
    let expected = ["error cookbooks/app/metadata.rb:2: depends takes one version constraint"];
    assert_eq!(cookbook("depends 'nginx', '>= 1.0', '< 2.0'"), expected);
    assert_eq!(cookbook("depends 'nginx', ['>= 1.0', '< 2.0']"), expected);
    assert_eq!(cookbook("version '1'"), ["error cookbooks/app/metadata.rb:2: \"1\" is no version of two or three numbers"]);
    assert_eq!(cookbook("version '1.0'"), NONE);
}

#[test]
fn versions_that_are_not_literal_are_not_judged_and_none_is_zero() {
    let asks = ("roles/a.json", r#"{"run_list": ["recipe[app@9.9.9]"]}"#);
    let app = |metadata: &str| with(&[asks, ("cookbooks/app/recipes/default.rb", ""), ("cookbooks/app/metadata.rb", metadata)]);
    for unknown in ["version V", "version '1.0.0' if x", "if x\n  version '1.0.0'\nend", "eval 'x'", "version \"1.#{x}\""] {
        assert_eq!(app(&format!("name 'app'\n{unknown}")), NONE, "{unknown}");
    }
    assert_eq!(app("name 'app'"), ["error roles/a.json:1: cookbook \"app\" is asked for in version 9.9.9, it is 0.0.0"]);
    assert_eq!(app("name 'app'\nversion '1.0.0'\nversion '9.9.9'"), NONE);
    let json = ("cookbooks/app/metadata.json", r#"{"name": "app", "version": "9.9.9"}"#);
    let both = [asks, json, ("cookbooks/app/recipes/default.rb", ""), ("cookbooks/app/metadata.rb", "version '1.0.0'")];
    assert_eq!(with(&both), NONE, "metadata.json is what counts");
    let json = ("cookbooks/app/metadata.json", r#"{"name": "app"}"#);
    let zero = ["error roles/a.json:1: cookbook \"app\" is asked for in version 9.9.9, it is 0.0.0"];
    assert_eq!(with(&[asks, json, ("cookbooks/app/recipes/default.rb", "")]), zero);
}

#[test]
fn environments_must_allow_the_version_that_is_there() {
    let ruby = "name 'prod'\ncookbook 'nginx', '= 1.0.0'\ncookbook_versions 'nginx' => '< 1.0'\ncookbook 'other', '= 1.0.0'\n";
    let expected = ["error environments/prod.rb:3: cookbook \"nginx\" is asked for in version \"< 1.0\", it is 1.2.3"];
    assert_eq!(with(&[("environments/prod.rb", ruby)]), expected, "the second call replaces the first");
    let json =
        |version: &str| with(&[("environments/p.json", &format!("{{\"cookbook_versions\": {{\"nginx\": {version:?}}}}}"))]);
    assert_eq!(
        json("= 1.0.0"),
        ["error environments/p.json:1: cookbook \"nginx\" is asked for in version \"= 1.0.0\", it is 1.2.3"]
    );
    assert_eq!(json(">= 1.0"), NONE);
    for bad in ["> 1", "1.2.3.4", "latest"] {
        let message = format!("error environments/p.json:1: {bad:?} is no version constraint, such as \"~> 1.2\" or \"= 1.2.3\"");
        assert_eq!(json(bad), [message], "environments are stricter than depends");
    }
}

#[test]
fn items_of_data_bags_have_an_id_that_is_their_files_name() {
    let item = |text: &str| with(&[("data_bags/users/bob.json", text)]);
    assert_eq!(item("{}"), ["error data_bags/users/bob.json:1: the item of a data bag has no \"id\""]);
    assert_eq!(item("{\n\"id\": 5}"), ["error data_bags/users/bob.json:2: the \"id\" must be a string"]);
    let [wrong] = &item("{\"id\": \"b/b\"}")[..] else { panic!() };
    assert!(wrong.starts_with("error ") && wrong.contains("has other characters"), "{wrong}");
    let [other] = &item("{\n\n\"id\": \"alice\"}")[..] else { panic!() };
    assert!(other.starts_with("warning data_bags/users/bob.json:3: the \"id\" is \"alice\""), "{other}");
    assert_eq!(item(r#"{"id": "bob", "nested": {"id": 5}}"#), NONE);
    assert_eq!(item(r#"{"name": "data_bag_item_users_bob", "raw_data": {"id": "bob"}}"#), NONE);
}

#[test]
fn names_that_are_there_twice_are_told() {
    let twice = with(&[("roles/web.json", "{}")]);
    assert_eq!(twice, ["warning roles/web.json: role \"web\" is there more than once: roles/web.json, roles/web.rb"]);
    let same = with(&[("cookbooks/nginx-2/metadata.rb", "name 'nginx'")]);
    assert_eq!(same, ["warning cookbooks/nginx-2/metadata.rb: cookbooks/nginx is called \"nginx\" too"]);
    // A cookbook and its vendored copy, and revisions of one in an exported policy, are no mistake.
    let copies = [("vendor/cookbooks/nginx/metadata.rb", "name 'nginx'")];
    assert_eq!(with(&copies), NONE);
    let artifacts = ["a", "b"].map(|sha| format!("cookbook_artifacts/nginx-{sha}/metadata.json"));
    assert_eq!(with(&[(&artifacts[0], r#"{"name": "nginx"}"#), (&artifacts[1], r#"{"name": "nginx"}"#)]), NONE);
}

#[test]
fn cookbooks_go_by_their_metadatas_name_and_by_their_directorys() {
    let files = [("cookbooks/cookbook-app/metadata.rb", "name 'app'"), ("cookbooks/cookbook-app/recipe.rb", "")];
    let list = |names: &str| with(&[&files[..], &[("roles/a.rb", &format!("run_list %w({names})"))]].concat());
    assert_eq!(list("app cookbook-app"), NONE);
    assert_eq!(list("other"), ["error roles/a.rb:1: there is no cookbook \"other\""]);
}

#[test]
fn an_empty_directory_is_a_submodule_that_was_left_out() {
    let repo = Repo::new(&GOOD);
    fs::create_dir(repo.path("cookbooks/apt")).unwrap();
    repo.write("nodes/a.json", r#"{"run_list": ["apt"]}"#);
    assert_eq!(repo.found(), ["error nodes/a.json:1: there is no cookbook \"apt\" (cookbooks/apt is empty: see --submodules)"]);
}

#[test]
fn a_chef_repo_may_be_in_a_directory_and_its_cookbooks_where_somebody_says() {
    let repo =
        Repo::new(&[("infra/roles/web.json", r#"{"run_list": ["nginx"]}"#), ("infra/third/party/nginx/recipes/default.rb", "")]);
    let nothing = "error .: there are neither cookbooks nor roles nor anything else of Chef's: see --chef-path";
    assert_eq!(repo.found(), [nothing]);
    assert_eq!(repo.checked(&Place::default()).extent, "nothing of Chef's");
    let place = |paths: &[&str]| Place {
        path: "infra".into(),
        cookbook_paths: (!paths.is_empty()).then(|| paths.iter().map(|path| (*path).to_owned()).collect()),
    };
    assert_eq!(shown(&repo.checked(&place(&[]))), ["error infra/roles/web.json:1: there is no cookbook \"nginx\""]);
    assert_eq!(shown(&repo.checked(&place(&["third/party"]))), NONE);
    let moved = |to: &str| {
        let recipe = format!("infra/{to}/nginx/recipe.rb");
        let repo = Repo::new(&[("infra/roles/web.json", r#"{"run_list": ["nginx"]}"#), (&recipe, "")]);
        shown(&repo.checked(&place(&[])))
    };
    for usual in ["site-cookbooks", "berks-cookbooks", "vendor/cookbooks", "cookbook_artifacts"] {
        assert_eq!(moved(usual), NONE, "{usual}");
    }
    let hint = "error infra/roles/web.json:1: there is no cookbook \"nginx\" (there is one in my-cookbooks: see --cookbook-path)";
    assert_eq!(moved("my-cookbooks"), [hint]);
    let wrong = shown(&repo.checked(&place(&["third/party", "gone"])));
    assert_eq!(wrong, ["error infra/gone: there is no such directory: see --cookbook-path"]);
}
