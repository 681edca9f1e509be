//! The users of the users file as others may know them: by name, never by secret.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::catalog::model::Role;
use super::users::UsersFile;

/// Roles of the users file are numbered from here on, above everything of a database.
const FIRST_ROLE: u32 = 0x7000_0000;
/// There are so many numbers; a name is given one by its hash.
const ROLE_NUMBERS: u32 = 0x0FFF_FFFF;

/// Who can log in to a server.
#[derive(Clone, Debug, Default)]
pub struct Roles(Option<Arc<UsersFile>>);

impl Roles {
    /// Those of that file.
    pub(super) fn of(file: &Arc<UsersFile>) -> Roles {
        Roles(Some(Arc::clone(file)))
    }

    /// The users of the file as it is now, by name; nothing if there is no file, and everybody may log in. A user keeps his
    /// number while he is in the file, also over restarts, but for two whose names have the same hash. May block.
    pub fn list(&self) -> Option<Vec<Role>> {
        self.0.as_ref().map(|file| numbered(file.names()))
    }
}

/// Gives each name a number that depends on nothing but the name, as long as no two want the same.
fn numbered(names: Vec<(String, bool)>) -> Vec<Role> {
    let wanted = |name: &str| crc32fast::hash(name.as_bytes()) % ROLE_NUMBERS;
    let mut roles: Vec<Role> = names
        .into_iter()
        .map(|(name, superuser)| Role { oid: wanted(&name), name, superuser, can_login: true })
        .collect();
    // Whose name comes first keeps the number that both want.
    roles.sort_by(|one, other| one.name.cmp(&other.name));
    let mut taken = HashSet::new();
    for role in &mut roles {
        while !taken.insert(role.oid) {
            role.oid = (role.oid + 1) % ROLE_NUMBERS;
        }
        role.oid += FIRST_ROLE;
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_keeps_its_number_whoever_else_there_is() {
        let names = |count: usize| (0..count).map(|n| (format!("user {n}"), n == 1)).collect::<Vec<_>>();
        let (few, mut many) = (numbered(names(3)), names(1000));
        many.reverse();
        let many = numbered(many);
        for role in &few {
            let same = many.iter().find(|other| other.name == role.name).unwrap();
            assert_eq!((same.oid, same.superuser), (role.oid, role.name == "user 1"));
        }
        let numbers: HashSet<u32> = many.iter().map(|role| role.oid).collect();
        assert_eq!(numbers.len(), many.len());
        assert!(numbers.iter().all(|number| (FIRST_ROLE..0x8000_0000).contains(number)));
        assert!(Roles::default().list().is_none());
    }

    #[test]
    fn two_names_of_one_hash_have_two_numbers() {
        // Found by search: both have the CRC-32 0x4DDB0C25.
        let [one, other] = ["plumless", "buckeroo"].map(|name| (name.to_owned(), false));
        assert_eq!(crc32fast::hash(one.0.as_bytes()), crc32fast::hash(other.0.as_bytes()));
        let roles = numbered(vec![one, other]);
        let wanted = FIRST_ROLE + 0x4DDB_0C25 % ROLE_NUMBERS;
        assert_eq!(roles.iter().map(|role| role.oid).collect::<Vec<_>>(), [wanted, wanted + 1]);
    }
}
