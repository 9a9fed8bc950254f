//! What the CI system tells about its job: repository, commit, ref and a link to the run.
//!
//! Everything here comes from environment variables that whoever opens a pull request can influence (branch names above
//! all): a value that does not have the shape of what it should be is dropped, and credentials in URLs are cut out.

use std::path::PathBuf;

use url::Url;

use crate::config::layers::{Environment, JOB_TOKEN_VARIABLE};
use crate::config::values;
use crate::source::Location;
use crate::source::credentials::Login;

#[cfg(test)]
mod tests;

/// A tag of EC2 holds so many characters.
const URL_MAX: usize = 256;

/// A CI system that is recognised by its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// GitHub Actions, and what speaks like it (Gitea, Forgejo).
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Jenkins with its git plugin.
    Jenkins,
    /// Buildkite.
    Buildkite,
    /// CircleCI.
    CircleCi,
    /// Azure Pipelines.
    Azure,
    /// AWS CodeBuild.
    CodeBuild,
    /// Woodpecker.
    Woodpecker,
    /// Drone.
    Drone,
}

/// What the environment says about the job; everything is `None` outside of CI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ci {
    /// Which system.
    pub system: Option<System>,
    /// The repository's URL, without credentials.
    pub repository: Option<String>,
    /// What the CI system itself clones the repository with: the credentials that the URL had, or the job's token.
    pub login: Option<Login>,
    /// A full SHA.
    pub commit: Option<git2::Oid>,
    /// A full ref name.
    pub reference: Option<String>,
    /// A link to the run.
    pub run_url: Option<String>,
    /// The server that the job comes from, where repositories are called `owner/name`.
    pub server: Option<Url>,
    /// `$GITHUB_OUTPUT`: where the outputs of a step are appended.
    pub github_output: Option<PathBuf>,
    /// `$GITHUB_STEP_SUMMARY`: where Markdown for the run's page is appended.
    pub step_summary: Option<PathBuf>,
}

/// What a system says, not yet checked.
#[derive(Default)]
struct Claims {
    repository: Option<String>,
    commit: Option<String>,
    reference: Option<String>,
    run_url: Option<String>,
}

impl Ci {
    /// The URL of what the job's server calls `owner/name`; `None` if there is no such server, or that is no such name.
    pub fn repository_called(&self, name: &str) -> Option<String> {
        let (owner, repository) = name.split_once('/')?;
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let is_name = is_word(owner) && !owner.starts_with('.') && is_word(repository) && !matches!(repository, "." | "..");
        let server = self.server.as_ref().filter(|_| is_name)?;
        Some(format!("{}/{name}", server.as_str().trim_end_matches('/')))
    }
}

/// Reads the environment.
pub fn detect(environment: &Environment) -> Ci {
    let get = |name: &str| environment.get(name).map(str::to_owned);
    let system = recognise(environment);
    let claims = system.map(|system| claims(system, &get)).unwrap_or_default();
    Ci {
        system,
        login: claims.repository.as_deref().and_then(login).or_else(|| job_token(system, &get)),
        repository: claims.repository.and_then(|url| without_credentials(&url)),
        commit: claims.commit.and_then(|sha| values::commit(&sha).ok()),
        reference: claims.reference.filter(|name| git2::Reference::is_valid_name(name)),
        run_url: claims.run_url.and_then(|url| web_link(&url)),
        server: (system == Some(System::GitHub))
            .then(|| github_server(&get))
            .and_then(|url| Url::parse(&without_credentials(&url)?).ok()),
        github_output: get("GITHUB_OUTPUT").map(PathBuf::from),
        step_summary: get("GITHUB_STEP_SUMMARY").map(PathBuf::from),
    }
}

fn recognise(environment: &Environment) -> Option<System> {
    let set = |name: &str| environment.get(name).is_some();
    let is = |name: &str, value: &str| environment.get(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    // Buildkite, Woodpecker and Drone agents can run inside of another system's job; the more special ones come first.
    let systems = [
        (is("GITHUB_ACTIONS", "true"), System::GitHub),
        (is("GITLAB_CI", "true"), System::GitLab),
        (is("BUILDKITE", "true"), System::Buildkite),
        (is("CIRCLECI", "true"), System::CircleCi),
        (is("TF_BUILD", "true"), System::Azure),
        (set("CODEBUILD_BUILD_ID"), System::CodeBuild),
        (is("CI", "woodpecker"), System::Woodpecker),
        (is("DRONE", "true"), System::Drone),
        (set("JENKINS_URL") || set("JENKINS_HOME"), System::Jenkins),
    ];
    systems.into_iter().find_map(|(found, system)| found.then_some(system))
}

/// The variables of each system, from their documentation.
fn claims(system: System, get: &dyn Fn(&str) -> Option<String>) -> Claims {
    match system {
        System::GitHub => github(get),
        System::GitLab => Claims {
            repository: get("CI_REPOSITORY_URL").or_else(|| get("CI_PROJECT_URL").map(|url| url + ".git")),
            commit: get("CI_COMMIT_SHA"),
            reference: tag(get("CI_COMMIT_TAG"))
                .or_else(|| get("CI_MERGE_REQUEST_REF_PATH"))
                .or_else(|| branch(get("CI_COMMIT_REF_NAME"))),
            run_url: get("CI_PIPELINE_URL").or_else(|| get("CI_JOB_URL")),
        },
        System::Jenkins => Claims {
            repository: get("GIT_URL").or_else(|| get("GIT_URL_1")),
            commit: get("GIT_COMMIT"),
            reference: jenkins_reference(get),
            run_url: get("BUILD_URL"),
        },
        System::Buildkite => Claims {
            repository: get("BUILDKITE_REPO"),
            commit: get("BUILDKITE_COMMIT"),
            reference: tag(get("BUILDKITE_TAG")).or_else(|| buildkite_branch(get)),
            run_url: get("BUILDKITE_BUILD_URL"),
        },
        System::CircleCi => Claims {
            repository: get("CIRCLE_REPOSITORY_URL"),
            commit: get("CIRCLE_SHA1"),
            reference: tag(get("CIRCLE_TAG")).or_else(|| {
                // The "branch" of a fork's pull request is pull/<number>.
                let name = get("CIRCLE_BRANCH")?;
                if name.starts_with("pull/") { Some(format!("refs/{name}/head")) } else { branch(Some(name)) }
            }),
            run_url: get("CIRCLE_BUILD_URL"),
        },
        System::Azure => Claims {
            repository: get("BUILD_REPOSITORY_URI"),
            commit: get("BUILD_SOURCEVERSION"),
            reference: get("BUILD_SOURCEBRANCH"),
            run_url: azure_run(get),
        },
        System::CodeBuild => Claims {
            repository: get("CODEBUILD_SOURCE_REPO_URL"),
            commit: get("CODEBUILD_RESOLVED_SOURCE_VERSION"),
            reference: codebuild_reference(get),
            run_url: get("CODEBUILD_BUILD_URL").or_else(|| get("CODEBUILD_PUBLIC_BUILD_URL")),
        },
        System::Woodpecker => Claims {
            repository: get("CI_REPO_CLONE_URL"),
            commit: get("CI_COMMIT_SHA"),
            reference: get("CI_COMMIT_REF"),
            run_url: get("CI_PIPELINE_URL"),
        },
        System::Drone => Claims {
            repository: get("DRONE_GIT_HTTP_URL").or_else(|| get("DRONE_REMOTE_URL")),
            commit: get("DRONE_COMMIT_SHA"),
            reference: get("DRONE_COMMIT_REF"),
            run_url: get("DRONE_BUILD_LINK"),
        },
    }
}

fn github(get: &dyn Fn(&str) -> Option<String>) -> Claims {
    let server = github_server(get);
    let repository = get("GITHUB_REPOSITORY").map(|name| format!("{server}/{name}"));
    let run = repository.as_ref().zip(get("GITHUB_RUN_ID"));
    Claims {
        run_url: run.map(|(repository, id)| format!("{repository}/actions/runs/{id}")),
        repository,
        commit: get("GITHUB_SHA"),
        reference: get("GITHUB_REF"),
    }
}

fn github_server(get: &dyn Fn(&str) -> Option<String>) -> String {
    get("GITHUB_SERVER_URL").unwrap_or_else(|| "https://github.com".into())
}

/// `GIT_BRANCH` is `origin/main` in a classic job and `main` (or `PR-1`, which is no branch) in a multibranch one.
fn jenkins_reference(get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(name) = get("TAG_NAME") {
        return tag(Some(name));
    }
    if get("CHANGE_ID").is_some() {
        return None;
    }
    let multibranch = get("BRANCH_NAME").or_else(|| get("GIT_LOCAL_BRANCH"));
    let classic = || {
        let name = get("GIT_BRANCH").filter(|name| name != "detached")?;
        let name = name.strip_prefix("refs/remotes/").unwrap_or(&name);
        Some(name.strip_prefix("origin/").unwrap_or(name).to_owned())
    };
    branch(multibranch.or_else(classic))
}

/// For a pull request the agent fetches GitHub's ref of it; the branch may be in a fork.
fn buildkite_branch(get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let request = get("BUILDKITE_PULL_REQUEST").filter(|number| number != "false");
    match request {
        Some(number) => Some(format!("refs/pull/{number}/head")),
        None => branch(get("BUILDKITE_BRANCH")),
    }
}

fn azure_run(get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut url = Url::parse(&get("SYSTEM_COLLECTIONURI")?).ok()?;
    let project = get("SYSTEM_TEAMPROJECT")?;
    url.path_segments_mut().ok()?.pop_if_empty().extend([project.as_str(), "_build", "results"]);
    url.query_pairs_mut().append_pair("buildId", &get("BUILD_BUILDID")?);
    Some(url.into())
}

/// A webhook's ref, else the source version if it is a pull request or a full ref name.
fn codebuild_reference(get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let version = get("CODEBUILD_SOURCE_VERSION");
    let request = version.as_ref().and_then(|version| version.strip_prefix("pr/"));
    let request = request.map(|number| format!("refs/pull/{number}/head"));
    request.or_else(|| get("CODEBUILD_WEBHOOK_HEAD_REF")).or(version.filter(|version| version.starts_with("refs/")))
}

fn branch(name: Option<String>) -> Option<String> {
    name.map(|name| if name.starts_with("refs/") { name } else { format!("refs/heads/{name}") })
}

fn tag(name: Option<String>) -> Option<String> {
    name.map(|name| if name.starts_with("refs/") { name } else { format!("refs/tags/{name}") })
}

/// User and password of the URL. A user alone is no secret: at Azure DevOps it is the organisation.
fn login(url: &str) -> Option<Login> {
    let (_, login) = Location::parse(url).ok()?;
    login.filter(|login| !login.password.is_empty())
}

/// The token of a job of GitHub Actions, where the workflow hands it on.
fn job_token(system: Option<System>, get: &dyn Fn(&str) -> Option<String>) -> Option<Login> {
    let token = get(JOB_TOKEN_VARIABLE).filter(|_| system == Some(System::GitHub))?;
    let password = token.trim().to_owned();
    let is_token = !password.is_empty() && !password.contains(|c: char| c.is_control() || c.is_whitespace());
    is_token.then(|| Login { user: "x-access-token".into(), password })
}

/// The URL with user and password cut out (for SSH the user stays, it is no secret). `None` for what is no URL.
fn without_credentials(text: &str) -> Option<String> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.len() > 4 * URL_MAX {
        return None;
    }
    let Ok(mut url) = Url::parse(text) else {
        // git's short form of an SSH URL (user@host:path) has no place for a password.
        let (host, path) = text.split_once(':')?;
        return (!host.is_empty() && !host.contains('/') && !path.is_empty()).then(|| text.to_owned());
    };
    let keeps_user = url.scheme() == "ssh";
    if !matches!(url.scheme(), "http" | "https" | "ssh" | "git+ssh") {
        return None;
    }
    url.set_password(None).ok()?;
    if !keeps_user {
        url.set_username("").ok()?;
    }
    url.set_query(None);
    url.set_fragment(None);
    Some(url.into())
}

/// A link that can be shown and put into a tag.
fn web_link(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.set_password(None).ok()?;
    url.set_username("").ok()?;
    let link = String::from(url);
    (link.len() <= URL_MAX).then_some(link)
}

/// Whether two URLs lead to the same repository: the same host and path, by whatever protocol and user.
pub fn same_repository(one: &str, other: &str) -> bool {
    let place = place(one);
    place.is_some() && place == self::place(other)
}

/// Host and path of a URL or of git's short SSH form; `None` for local paths.
fn place(text: &str) -> Option<(String, String)> {
    let url = match text.split_once("://") {
        Some(_) => Url::parse(text).ok()?,
        None => {
            let (host, path) = text.split_once(':').filter(|(host, _)| !host.contains('/'))?;
            Url::parse(&format!("ssh://{host}/{path}")).ok()?
        }
    };
    let host = url.host_str().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let path = url.path().trim_matches('/');
    Some((host, path.strip_suffix(".git").unwrap_or(path).to_owned()))
}
