//! Who calls AWS, from which region and with what clock: what every command needs.

use jiff::SignedDuration;

use super::{Check, instance, skipped};
use crate::error::{Error, Kind};
use crate::storage::ec2::preflight::{Caller, Preflight};

/// AWS refuses what was signed more than five minutes ago (IAM User Guide, "Troubleshoot AWS Signature Version 4").
const SKEW_REFUSED: SignedDuration = SignedDuration::from_secs(5 * 60);
const SKEW_NOTED: SignedDuration = SignedDuration::from_secs(60);

/// The checks that need a region.
pub(super) const CALLER: [&str; 2] = ["credentials", "clock"];
pub(super) const NEEDS_REGION: &str = "needs the region";
pub(super) const NEEDS_CREDENTIALS: &str = "needs credentials";

/// The checks of this file, and what `look` adds to them where there are a region and credentials. Else the checks of these names are
/// skipped.
pub(super) async fn and<F>(flight: &Preflight<'_>, is_stated: bool, names: &[&'static str], look: F) -> Vec<Check>
where
    F: AsyncFnOnce() -> Vec<Check>,
{
    let found = flight.region().await;
    let region = region(found.as_deref(), is_stated);
    if found.is_err() {
        return [vec![region], skipped(&[&CALLER[..], names].concat(), NEEDS_REGION)].concat();
    }
    let caller = flight.caller().await;
    let looked = match caller {
        Caller::Refused(_) => skipped(names, NEEDS_CREDENTIALS),
        _ => look().await,
    };
    // All answers tell the time.
    let ahead = flight.clock_ahead();
    [vec![region, credentials(caller, ahead), clock(ahead)], looked].concat()
}

/// The region, and who says so.
pub(super) fn region(found: Result<&str, &Error>, is_stated: bool) -> Check {
    let source = instance::region_source(is_stated, |name| std::env::var_os(name).is_some());
    Check::of("region", found.map(|region| format!("{region} ({source})")).map_err(instance::same))
}

/// Whose the credentials are. Who cannot ask STS may well reach EC2.
pub(super) fn credentials(caller: Caller, ahead: Option<SignedDuration>) -> Check {
    let name = CALLER[0];
    match caller {
        Caller::Known(arn) => Check::ok(name, arn),
        Caller::Refused(error) => {
            let check = Check::of_error(name, &error);
            match ahead.filter(|ahead| ahead.abs() >= SKEW_REFUSED) {
                Some(ahead) => check.hint(format!("the clock of this host is wrong by {} s: set it", ahead.as_secs())),
                None => check,
            }
        }
        Caller::Unasked(error) => Check::of_error(name, &error)
            .no_worse_than_warning()
            .hint("no command but this asks STS; the checks below tell whether EC2 takes the credentials"),
    }
}

pub(super) fn clock(ahead: Option<SignedDuration>) -> Check {
    let name = CALLER[1];
    let Some(ahead) = ahead else { return Check::skipped(name, "no answer told the time") };
    let seconds = ahead.as_secs();
    let off = match seconds {
        0.. => format!("{seconds} s ahead of AWS's"),
        _ => format!("{} s behind AWS's", -seconds),
    };
    let hint = "set the clock of this host: AWS refuses what was signed more than five minutes ago or ahead";
    match ahead.abs() {
        skew if skew >= SKEW_REFUSED => Check::failure(name, Kind::Permission, off, hint),
        skew if skew >= SKEW_NOTED => Check::warning(name, off, hint),
        _ => Check::ok(name, "agrees with AWS's"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_clock_counts_from_a_minute_on_and_fails_where_aws_refuses() {
        let outcome = |seconds| clock(Some(SignedDuration::from_secs(seconds))).outcome;
        assert_eq!([0, 59, -59].map(outcome), [Outcome::Ok; 3]);
        assert_eq!([60, -299].map(outcome), [Outcome::Warning; 2]);
        assert_eq!([300, -86_400].map(outcome), [Outcome::Failure(Kind::Permission); 2]);
        assert_eq!(clock(Some(SignedDuration::from_secs(-90))).detail, "90 s behind AWS's");
        assert_eq!(clock(None).outcome, Outcome::Skipped);
    }

    #[test]
    fn credentials_that_a_wrong_clock_spoils_are_told_so() {
        let refused = || Caller::Refused(Error::new(Kind::Permission, "SignatureDoesNotMatch").hint("docs/iam-policy.json"));
        let hint = |ahead| credentials(refused(), ahead).hint.unwrap();
        assert!(hint(Some(SignedDuration::from_secs(-1000))).contains("wrong by -1000 s"));
        assert_eq!(hint(Some(SignedDuration::from_secs(2))), "docs/iam-policy.json");
        let unasked = credentials(Caller::Unasked(Error::new(Kind::Storage, "no answer")), None);
        assert_eq!(unasked.outcome, Outcome::Warning, "EC2 may answer where STS does not");
    }
}
