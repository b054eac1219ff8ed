//! What has to be renewed when: decided without I/O.

use super::{Identity, Period};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest pause until it is looked at again; a clock that is set back or a Secret that was restored is noticed so.
const LONGEST: Duration = Duration::from_secs(3600);

/// How far a certificate may begin in the future. Beyond, it was made by a clock that was wrong, and nobody would believe
/// it until then.
const SKEW: i64 = 300;

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for this long.
    Keep(Duration),
    /// The certificate is made anew, for these names, by the authority that there is; that of the ingress too.
    RenewLeaf(BTreeSet<String>),
    /// A new authority is made. The certificate of the one before stays until it has to be renewed itself: by then, all
    /// that trust the one before have learnt of the new one.
    RenewAuthority,
    /// Everything is made anew: there is nothing, or what there is has ended.
    RenewAll,
}

/// Decides at `now` (Unix seconds), for a listener that has to be reachable under `names`.
///
/// Both certificates are renewed when two thirds of their life are over.
pub fn plan(now: i64, stored: Option<&Identity>, names: &BTreeSet<String>) -> Step {
    let Some(stored) = stored else { return Step::RenewAll };
    let (authority, leaf) = (&stored.authority.period, &stored.leaf.period);
    if authority.is_over(now) || authority.from > now + SKEW {
        return Step::RenewAll;
    }
    if now >= authority.due() {
        return Step::RenewAuthority;
    }
    if leaf.is_over(now) || leaf.from > now + SKEW {
        return Step::RenewLeaf(names.clone());
    }
    if now >= leaf.due() {
        let known = authority.from.saturating_add(settling(leaf));
        return match stored.former.is_empty() || now >= known || known >= leaf.until {
            true => Step::RenewLeaf(names.clone()),
            false => Step::Keep(seconds(known - now)),
        };
    }
    if !names.is_subset(&stored.names) {
        // During an update of the deployment, replicas may be called differently for a while. With the names of both,
        // they do not take turns.
        return Step::RenewLeaf(names.union(&stored.names).cloned().collect());
    }
    if stored.ingress.is_none() {
        return Step::RenewLeaf(names.union(&stored.names).cloned().collect());
    }
    Step::Keep(seconds(authority.due().min(leaf.due()).saturating_sub(now)).min(LONGEST))
}

/// How long a new authority is left alone, so that all learn of it before it is needed: an hour, or a sixth of a life that
/// is short.
fn settling(leaf: &Period) -> i64 {
    (leaf.until.saturating_sub(leaf.from) / 6).min(3600)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::{Certificate, Former};
    use super::*;

    const DAY: i64 = 86_400;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn certificate(from: i64, until: i64) -> Certificate {
        Certificate { pem: String::new(), key: String::new(), period: Period { from, until } }
    }

    /// An authority for ten years and a leaf for ninety days, both made at 0.
    fn fresh() -> Identity {
        Identity {
            authority: certificate(0, 3650 * DAY),
            former: Vec::new(),
            leaf: certificate(0, 90 * DAY),
            names: names(&["a", "localhost"]),
            key: String::new(),
            ingress: Some(certificate(0, 90 * DAY)),
        }
    }

    #[test]
    fn what_an_earlier_version_has_made_gets_a_certificate_for_the_ingress() {
        let stored = Identity { ingress: None, ..fresh() };
        assert_eq!(plan(5, Some(&stored), &names(&["a"])), Step::RenewLeaf(names(&["a", "localhost"])));
    }

    #[test]
    fn nothing_there_or_everything_over_makes_everything() {
        assert_eq!(plan(5, None, &names(&["a"])), Step::RenewAll);
        assert_eq!(plan(3650 * DAY, Some(&fresh()), &names(&["a"])), Step::RenewAll);
    }

    #[test]
    fn the_leaf_is_renewed_at_two_thirds() {
        let wanted = names(&["a"]);
        assert_eq!(plan(60 * DAY - 1, Some(&fresh()), &wanted), Step::Keep(Duration::from_secs(1)));
        assert_eq!(plan(60 * DAY, Some(&fresh()), &wanted), Step::RenewLeaf(wanted.clone()));
        // Also if nobody was there to do it in time.
        assert_eq!(plan(200 * DAY, Some(&fresh()), &wanted), Step::RenewLeaf(wanted.clone()));
    }

    #[test]
    fn the_authority_is_renewed_at_two_thirds_and_before_the_leaf() {
        let due = 3650 * DAY * 2 / 3;
        let mut stored = fresh();
        stored.leaf = certificate(due - DAY, due + 89 * DAY);
        assert_eq!(plan(due - 1, Some(&stored), &names(&["a"])), Step::Keep(Duration::from_secs(1)));
        assert_eq!(plan(due, Some(&stored), &names(&["a"])), Step::RenewAuthority);
        stored.leaf = certificate(0, 90 * DAY);
        assert_eq!(plan(due, Some(&stored), &names(&["a"])), Step::RenewAuthority);
    }

    #[test]
    fn a_new_authority_is_known_before_it_is_needed() {
        let (wanted, mut stored) = (names(&["a"]), fresh());
        let made = 60 * DAY - 60;
        stored.authority = certificate(made, 4000 * DAY);
        stored.former.push(Former { pem: String::new(), until: 300 * DAY });
        assert_eq!(plan(60 * DAY, Some(&stored), &wanted), Step::Keep(Duration::from_secs(3540)));
        assert_eq!(plan(made + 3600, Some(&stored), &wanted), Step::RenewLeaf(wanted.clone()));
        // A certificate that is over helps nobody.
        stored.leaf.period.until = 60 * DAY + 5;
        assert_eq!(plan(60 * DAY + 5, Some(&stored), &wanted), Step::RenewLeaf(wanted));
    }

    #[test]
    fn replicas_with_different_names_agree() {
        let mut stored = fresh();
        let (old, new) = (names(&["a"]), names(&["b", "localhost"]));
        let Step::RenewLeaf(both) = plan(5, Some(&stored), &new) else { panic!("the name b is missing") };
        assert_eq!(both, names(&["a", "b", "localhost"]));
        stored.names = both;
        for wanted in [old, new] {
            assert!(matches!(plan(5, Some(&stored), &wanted), Step::Keep(_)), "{wanted:?}");
        }
    }

    #[test]
    fn what_a_wrong_clock_has_made_is_made_anew() {
        let mut stored = fresh();
        stored.leaf = certificate(DAY, 91 * DAY);
        assert_eq!(plan(5, Some(&stored), &names(&["a"])), Step::RenewLeaf(names(&["a"])));
        stored.authority = certificate(DAY, 3651 * DAY);
        assert_eq!(plan(5, Some(&stored), &names(&["a"])), Step::RenewAll);
    }

    #[test]
    fn it_is_looked_at_every_hour() {
        assert_eq!(plan(5, Some(&fresh()), &names(&["a"])), Step::Keep(LONGEST));
    }
}
