//! One kind of object, as far as it is known: by namespace and name, with read-your-writes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::decide::Identity;

/// How many deleted objects are remembered, so that a late watch event does not bring one back.
const BURIED: usize = 1000;

/// Namespace and name.
pub type Key = (String, String);

/// Objects of one kind.
#[derive(Clone, Debug)]
pub struct Store<T> {
    objects: BTreeMap<Key, (Identity, T)>,
    buried: VecDeque<String>,
    listing: Option<BTreeSet<Key>>,
    synced: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), buried: VecDeque::new(), listing: None, synced: false }
    }
}

impl<T> Store<T> {
    /// Whether the first listing is complete.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// A listing begins: what it does not name is gone at its end.
    pub fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// The listing is complete. Returns what is gone.
    pub fn finish(&mut self) -> Vec<T> {
        self.synced = true;
        let Some(seen) = self.listing.take() else { return Vec::new() };
        let gone: Vec<Key> = self.objects.keys().filter(|k| !seen.contains(*k)).cloned().collect();
        gone.into_iter().filter_map(|k| self.objects.remove(&k)).map(|(_, object)| object).collect()
    }

    /// Takes an object in, unless a newer version of it is known or it was deleted. False if nothing changed.
    pub fn put(&mut self, id: Identity, object: T) -> bool {
        if self.buried.contains(&id.uid) {
            return false;
        }
        let key = (id.namespace.clone(), id.name.clone());
        if let Some(seen) = &mut self.listing {
            seen.insert(key.clone());
        }
        if let Some((known, _)) = self.objects.get(&key)
            && known.uid == id.uid
            && !newer(&id.resource_version, &known.resource_version)
        {
            return false;
        }
        self.objects.insert(key, (id, object));
        true
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, id: &Identity) -> Option<T> {
        if self.buried.len() >= BURIED {
            self.buried.pop_front();
        }
        if !self.buried.contains(&id.uid) {
            self.buried.push_back(id.uid.clone());
        }
        self.let_go(id)
    }

    /// Forgets an object that is still there: it can come back.
    pub fn let_go(&mut self, id: &Identity) -> Option<T> {
        let key = (id.namespace.clone(), id.name.clone());
        match self.objects.get(&key) {
            Some((known, _)) if known.uid == id.uid => self.objects.remove(&key).map(|(_, object)| object),
            _ => None,
        }
    }

    /// Whether this is not news: a later state of the object is known, or that it was deleted.
    pub fn is_past(&self, id: &Identity) -> bool {
        let known = self.objects.get(&(id.namespace.clone(), id.name.clone())).map(|(known, _)| known);
        let later =
            known.filter(|known| known.uid == id.uid && known.resource_version != id.resource_version);
        self.buried.contains(&id.uid)
            || later.is_some_and(|known| !newer(&id.resource_version, &known.resource_version))
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.objects.get(&(namespace.to_owned(), name.to_owned())).map(|(_, object)| object)
    }

    /// One object, to drop a part of it that nobody needs.
    pub fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut T> {
        self.objects.get_mut(&(namespace.to_owned(), name.to_owned())).map(|(_, object)| object)
    }

    /// All objects, to drop parts of them that nobody needs.
    pub fn all_mut(&mut self) -> impl Iterator<Item = (&Key, &mut T)> {
        self.objects.iter_mut().map(|(key, (_, object))| (key, object))
    }

    /// All objects of a namespace.
    pub fn of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a T> + 'a {
        let from = (namespace.to_owned(), String::new());
        self.objects
            .range(from..)
            .take_while(move |((ns, _), _)| ns == namespace)
            .map(|(_, (_, object))| object)
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.objects.iter().map(|(key, (_, object))| (key, object))
    }
}

/// Whether a version is newer. Versions are comparable numbers since Kubernetes 1.35 by contract, before by
/// fact; anything else counts as newer.
fn newer(candidate: &str, known: &str) -> bool {
    match (candidate.parse::<u128>(), known.parse::<u128>()) {
        (Ok(candidate), Ok(known)) => candidate > known,
        _ => candidate != known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, uid: &str, version: &str) -> Identity {
        Identity {
            namespace: "shop".into(),
            name: name.into(),
            uid: uid.into(),
            resource_version: version.into(),
        }
    }

    #[test]
    fn an_older_version_never_overwrites_a_newer_one() {
        let mut store = Store::default();
        assert!(store.put(id("web", "u1", "9"), 9));
        assert!(!store.put(id("web", "u1", "8"), 8), "a late watch event");
        assert_eq!(store.get("shop", "web"), Some(&9));
        assert!(store.put(id("web", "u1", "10"), 10), "numbers, not letters");
        assert!(store.put(id("web", "u2", "3"), 3), "another object of the same name");
    }

    #[test]
    fn a_deleted_object_does_not_come_back() {
        let mut store = Store::default();
        store.put(id("web", "u1", "1"), 1);
        assert_eq!(store.remove(&id("web", "u1", "")), Some(1));
        assert!(!store.put(id("web", "u1", "2"), 2));
        assert!(store.put(id("web", "u2", "3"), 3));
        assert_eq!(store.remove(&id("web", "u1", "")), None, "the new one stays");
        assert_eq!(store.get("shop", "web"), Some(&3));
    }

    #[test]
    fn a_listing_forgets_what_it_does_not_name() {
        let mut store = Store::default();
        store.put(id("a", "u1", "1"), 1);
        store.put(id("b", "u2", "2"), 2);
        store.begin();
        store.put(id("b", "u2", "2"), 2);
        assert_eq!(store.finish(), vec![1]);
        assert!(store.synced());
        assert_eq!(store.of("shop").count(), 1);
        assert_eq!(store.of("sho").count() + store.of("shop2").count(), 0);
    }
}
