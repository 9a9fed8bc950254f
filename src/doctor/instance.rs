//! Which instance this is, where it is, and who says so.

use std::time::Duration;

use super::Check;
use crate::error::{Error, Kind, Result};
use crate::host::identity::{Document, Stated};

/// The variables that name the region (AWS SDKs and Tools Reference Guide, "AWS Region").
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const METADATA_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const DEFAULT_METADATA_ENDPOINT: &str = "http://169.254.169.254";
const TIMEOUT: Duration = Duration::from_secs(1);
const BY_METADATA: &str = "metadata service";

/// What the metadata service came to.
type Asked<'a> = Result<&'a Document>;

/// An error that is told twice.
pub(super) fn same(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.to_string());
    match error.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

/// Whether the metadata service answers a request without a token, and be it to refuse it. Where it does and gives no token
/// all the same, it is the answer with the token that does not arrive: its packets live for as many hops as the instance's
/// metadata options say, all others for as many as usual (EC2 User Guide, "Use the Instance Metadata Service").
pub(super) async fn answers_without_token() -> bool {
    let asked = crate::bake::blocking(|| {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        let endpoint = std::env::var(METADATA_ENDPOINT).unwrap_or_else(|_| DEFAULT_METADATA_ENDPOINT.to_owned());
        let answer = agent.get(format!("{}/latest/meta-data/", endpoint.trim_end_matches('/'))).call();
        // A service that is turned off answers with 403.
        Ok(answer.is_ok_and(|answer| matches!(answer.status().as_u16(), 200 | 401)))
    });
    asked.await.unwrap_or(false)
}

/// `token_lost`: it is there, but its tokens do not arrive.
pub(super) fn metadata(document: &Asked<'_>, stated: &Stated, token_lost: bool) -> Check {
    let name = "metadata";
    let error = match document {
        Ok(_) => return Check::ok(name, "version 2 answers"),
        Err(error) => error,
    };
    if stated.is_complete() {
        return Check::skipped(name, "does not answer, and is not needed: --instance-id and --availability-zone are given");
    }
    let check = Check::of_error(name, error);
    match token_lost {
        true => {
            let detail = "it is there, but its answer with the token does not arrive: the hop limit is too low for a container";
            Check { detail: detail.to_owned(), ..check }
        }
        false => check,
    }
}

pub(super) fn id(document: &Asked<'_>, stated: &Stated) -> Check {
    let theirs = document.as_ref().ok().map(|document| document.instance_id.as_str());
    told("instance", "--instance-id", stated.instance_id.as_deref(), theirs)
}

/// The zone, which must be in the region.
pub(super) fn zone(document: &Asked<'_>, stated: &Stated, region: Option<&str>) -> Check {
    let theirs = document.as_ref().ok().map(|document| document.availability_zone.as_str());
    let check = told("zone", "--availability-zone", stated.availability_zone.as_deref(), theirs);
    let zone = stated.availability_zone.as_deref().or(theirs);
    match (zone, region) {
        // Those of Local and Wavelength Zones begin with the region's name too.
        (Some(zone), Some(region)) if !zone.starts_with(region) => {
            let hint = "a volume must be in the instance's region: see --region and AWS_REGION";
            Check::failure("zone", Kind::Usage, format!("{zone} is not in region {region}"), hint)
        }
        _ => check,
    }
}

/// What the user says counts; the metadata service knows better.
fn told(name: &'static str, option: &str, stated: Option<&str>, theirs: Option<&str>) -> Check {
    match (stated, theirs) {
        (Some(stated), Some(theirs)) if stated != theirs => {
            let detail = format!("{stated} ({option}), but the metadata service says {theirs}");
            let hint = format!("volumes appear on the instance that they are attached to: leave {option} out");
            Check::failure(name, Kind::Usage, detail, hint)
        }
        (Some(stated), _) => Check::ok(name, format!("{stated} ({option})")),
        (None, Some(theirs)) => Check::ok(name, format!("{theirs} ({BY_METADATA})")),
        (None, None) => Check::skipped(name, format!("needs the metadata service, or {option}")),
    }
}

/// Where the region's name comes from: what the SDK looks at, in its order.
pub(super) fn region_source(stated: bool, is_set: impl Fn(&str) -> bool) -> &'static str {
    match REGION_VARIABLES.into_iter().find(|name| is_set(name)) {
        _ if stated => "--region",
        Some(name) => name,
        None => "profile or metadata service",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn document() -> Document {
        Document {
            instance_id: "i-0123456789abcdef0".into(),
            availability_zone: "eu-central-1a".into(),
            region: "eu-central-1".into(),
        }
    }

    fn stated(id: Option<&str>, zone: Option<&str>) -> Stated {
        Stated { instance_id: id.map(str::to_owned), availability_zone: zone.map(str::to_owned) }
    }

    fn silent() -> Asked<'static> {
        Err(Error::new(Kind::Usage, "the instance metadata service does not tell").hint("--network host"))
    }

    #[test]
    fn a_silent_metadata_service_matters_if_it_is_needed() {
        let (nothing, all) = (stated(None, None), stated(Some("i-00000001"), Some("eu-central-1a")));
        assert_eq!(metadata(&Ok(&document()), &nothing, false).outcome, Outcome::Ok);
        assert_eq!(metadata(&silent(), &all, false).outcome, Outcome::Skipped);
        let needed = metadata(&silent(), &stated(Some("i-00000001"), None), false);
        assert_eq!((needed.outcome, needed.hint.as_deref()), (Outcome::Failure(Kind::Usage), Some("--network host")));
        let lost = metadata(&silent(), &nothing, true);
        assert!(lost.detail.contains("hop limit") && lost.hint.is_some());
    }

    #[test]
    fn who_told_is_told_and_who_is_wrong_is_refused() {
        let document = document();
        let (mine, other) = (stated(Some("i-0123456789abcdef0"), None), stated(Some("i-00000001"), Some("eu-central-1b")));
        assert_eq!(id(&Ok(&document), &stated(None, None)).detail, "i-0123456789abcdef0 (metadata service)");
        assert_eq!(id(&Ok(&document), &mine).detail, "i-0123456789abcdef0 (--instance-id)");
        assert_eq!(id(&silent(), &other).outcome, Outcome::Ok, "nobody knows better");
        assert_eq!(id(&Ok(&document), &other).outcome, Outcome::Failure(Kind::Usage));
        assert_eq!(zone(&Ok(&document), &other, Some("eu-central-1")).outcome, Outcome::Failure(Kind::Usage));
        assert_eq!(id(&silent(), &stated(None, None)).outcome, Outcome::Skipped);
    }

    #[test]
    fn a_zone_is_in_its_region() {
        let zone_in = |name, region| zone(&silent(), &stated(None, Some(name)), Some(region)).outcome;
        assert_eq!(zone_in("eu-central-1a", "eu-central-1"), Outcome::Ok);
        assert_eq!(zone_in("us-west-2-lax-1a", "us-west-2"), Outcome::Ok);
        assert_eq!(zone_in("eu-central-1a", "eu-west-1"), Outcome::Failure(Kind::Usage));
    }

    #[test]
    fn the_region_is_the_users_or_the_environments() {
        assert_eq!(region_source(true, |_| true), "--region");
        assert_eq!(region_source(false, |name| name == "AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION");
        assert_eq!(region_source(false, |_| false), "profile or metadata service");
    }
}
