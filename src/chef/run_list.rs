//! Entries of run lists, by the rules of `Chef::RunList::RunListItem` and `Chef::Recipe.parse_recipe_name`.

/// What an entry asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Item<'e> {
    /// `role[web]`
    Role(&'e str),
    /// `recipe[nginx::source@1.2.3]`; `nginx` is `recipe[nginx::default]`.
    Recipe { cookbook: &'e str, recipe: &'e str, version: Option<&'e str> },
}

/// Reads an entry; `None` for what stops Chef, such as `Recipe[x]` or `recipe[a], recipe[b]`.
pub fn parse(entry: &str) -> Option<Item<'_>> {
    if let Some(name) = bracketed(entry, "role[") {
        return Some(Item::Role(name));
    }
    if let Some(inside) = bracketed(entry, "recipe[") {
        let (name, version) = inside.split_once('@').map_or((inside, None), |(name, version)| (name, Some(version)));
        if !name.is_empty() && version.is_none_or(is_version) {
            return recipe(name, version);
        }
    }
    match entry.split_once('@') {
        Some((name, version)) if !name.is_empty() && is_version(version) => recipe(name, Some(version)),
        _ if entry.is_empty() || entry.contains(['[', ']']) => None,
        _ => recipe(entry, None),
    }
}

fn bracketed<'e>(entry: &'e str, kind: &str) -> Option<&'e str> {
    let inside = entry.strip_prefix(kind)?.strip_suffix(']')?;
    (!inside.is_empty() && !inside.contains(']')).then_some(inside)
}

/// Two or three numbers.
fn is_version(text: &str) -> bool {
    let mut parts = 0;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').inspect(|_| parts += 1).all(is_number) && (2..=3).contains(&parts)
}

fn recipe<'e>(name: &'e str, version: Option<&'e str>) -> Option<Item<'e>> {
    match name.split_once("::") {
        // There is no cookbook that this could be relative to.
        Some(("", _)) => None,
        Some((cookbook, recipe)) if !recipe.is_empty() => Some(Item::Recipe { cookbook, recipe, version }),
        _ => Some(Item::Recipe { cookbook: name, recipe: "default", version }),
    }
}
