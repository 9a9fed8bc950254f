//! AWS: clients made when they are needed first, and calls whose failures are values.

use sha2::{Digest, Sha256};

use crate::error::Result;

pub mod api;
pub mod failure;

/// All that a call answers with, page by page: what is on each, and the token of the next one.
///
/// # Errors
/// Those of the call.
pub async fn pages<T, F>(page: impl Fn(Option<String>) -> F) -> Result<Vec<T>>
where
    F: Future<Output = Result<(Vec<T>, Option<String>)>>,
{
    let (mut all, mut token) = (Vec::new(), None);
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        token = next.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(all);
        }
    }
}

/// A client token: the same for the same parts only. At most 64 characters (EC2 API reference, "Ensuring idempotency"); each part
/// with its length, so that none runs into another.
pub fn client_token(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(format!("{} {part}\n", part.len()));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_for_the_same_parts_only() {
        let token = client_token(&["chef snap-1", "eu-central-1a"]);
        assert_eq!(token.len(), 64);
        assert_eq!(token, client_token(&["chef snap-1", "eu-central-1a"]));
        for other in [["chef snap-1", "eu-central-1b"], ["chef snap-1eu-", "central-1a"], ["chef snap-2", "eu-central-1a"]] {
            assert_ne!(token, client_token(&other));
        }
    }
}
