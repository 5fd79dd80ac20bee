// SPDX-License-Identifier: AGPL-3.0-or-later
//! Determines which manifests a bundle's entries need, before the index is written. The bundle is untrusted: each
//! manifest is read once, however often it is named, and the total is limited.
//!
//! Only digests and their relations are kept in memory. The documents are read again when they are added to the
//! index.

use std::collections::{HashMap, HashSet};

use oci::{Descriptor, Digest, Manifest, ManifestKind, Repository};

use crate::Error;

/// Limits on a bundle's manifests. The import adds all of them in one transaction, and pushes wait for it: a few
/// seconds at these limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all documents that are added. A document that is added to two repositories counts twice. Ten thousand
    /// tags with indexes of three small images have 40 MiB.
    pub bytes: u64,
    /// References in all documents: to blobs and to manifests, counted in the same way.
    pub parts: u64,
}

pub const LIMITS: Limits = Limits { bytes: 64 << 20, parts: 250_000 };
/// Longest media type (RFC 6838, section 4.2: 127 characters on either side of the slash).
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// The manifests that a bundle's entries reach, each once.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    by_digest: HashMap<Digest, usize>,
}

#[derive(Debug)]
pub struct Node {
    pub digest: Digest,
    pub media_type: String,
    /// For an index: its manifests, each once.
    children: Vec<usize>,
    bytes: u64,
    parts: u64,
}

/// The total of the documents added, or read, so far.
#[derive(Debug, Default, Clone, Copy)]
struct Spent {
    bytes: u64,
    parts: u64,
}

impl Spent {
    fn add(&mut self, bytes: u64, parts: u64, limits: Limits) -> Result<(), Error> {
        self.bytes += bytes;
        self.parts += parts;
        if self.bytes > limits.bytes || self.parts > limits.parts {
            return Err(Error::bundle(format!(
                "its manifests have more than {} bytes or {} entries in all; export fewer artifacts into one \
                 bundle",
                limits.bytes, limits.parts
            )));
        }
        Ok(())
    }
}

impl Tree {
    /// Reads every manifest that these roots reach. `read` is called once for each digest.
    pub fn read<'a>(
        roots: impl Iterator<Item = &'a Descriptor>,
        limits: Limits,
        mut read: impl FnMut(&Digest) -> Result<Vec<u8>, Error>,
    ) -> Result<Tree, Error> {
        let mut tree = Tree::default();
        let mut spent = Spent::default();
        for root in roots {
            tree.place(root)?;
        }
        let mut next = 0;
        while let Some(node) = tree.nodes.get(next) {
            let bytes = read(&node.digest)?;
            let manifest = Manifest::parse(&bytes, &node.media_type)
                .map_err(|error| Error::bundle(format!("{}: {error}", node.digest)))?;
            let parts = (manifest.blobs().count() + manifest.manifests.len()) as u64;
            spent.add(bytes.len() as u64, parts, limits)?;
            let mut children = Vec::new();
            if manifest.kind() == ManifestKind::Index {
                let mut seen = HashSet::new();
                for child in &manifest.manifests {
                    let place = tree.place(child)?;
                    if seen.insert(place) {
                        children.push(place);
                    }
                }
            }
            let node = &mut tree.nodes[next];
            (node.children, node.bytes, node.parts) = (children, bytes.len() as u64, parts);
            next += 1;
        }
        Ok(tree)
    }

    /// The index of a descriptor's node, which is created if it does not exist.
    fn place(&mut self, descriptor: &Descriptor) -> Result<usize, Error> {
        if let Some(place) = self.by_digest.get(&descriptor.digest) {
            return Ok(*place);
        }
        if descriptor.media_type.len() > MEDIA_TYPE_BYTES_MAX {
            let digest = &descriptor.digest;
            return Err(Error::bundle(format!("the media type of {digest} is too long")));
        }
        let place = self.nodes.len();
        self.by_digest.insert(descriptor.digest.clone(), place);
        self.nodes.push(Node {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            children: Vec::new(),
            bytes: 0,
            parts: 0,
        });
        Ok(place)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// For each root, the manifests to add to its repository. Parts come before the manifests that contain them, and
    /// manifests that an earlier root added to the same repository are left out.
    pub fn order<'a>(
        &self,
        roots: impl Iterator<Item = (&'a Repository, &'a Digest)>,
        limits: Limits,
    ) -> Result<Vec<Vec<&Node>>, Error> {
        let mut entered: HashMap<&Repository, HashSet<usize>> = HashMap::new();
        let mut spent = Spent::default();
        let mut orders = Vec::new();
        for (repository, digest) in roots {
            let entered = entered.entry(repository).or_default();
            let mut order = Vec::new();
            // A node, and how many of its children were visited.
            let mut open: Vec<(usize, usize)> = Vec::new();
            let root = self.by_digest.get(digest).copied();
            open.extend(root.filter(|root| entered.insert(*root)).map(|root| (root, 0)));
            while let Some((place, looked_at)) = open.last_mut() {
                let node = &self.nodes[*place];
                if let Some(child) = node.children.get(*looked_at) {
                    *looked_at += 1;
                    if entered.insert(*child) {
                        open.push((*child, 0));
                    }
                } else {
                    spent.add(node.bytes, node.parts, limits)?;
                    order.push(node);
                    open.pop();
                }
            }
            orders.push(order);
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Limits = Limits { bytes: 1 << 20, parts: 1000 };

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    fn descriptor_of(document: &[u8]) -> Descriptor {
        Descriptor {
            media_type: oci::media_type::INDEX.into(),
            digest: Digest::of(document),
            size: document.len() as u64,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
        }
    }

    /// Documents by their digest, and the outermost one: `levels` indexes nested in each other, each of which names
    /// the next one `times` times.
    fn nested(levels: usize, times: usize) -> (HashMap<Digest, Vec<u8>>, Descriptor) {
        let mut documents = HashMap::new();
        let mut inner: Vec<Descriptor> = Vec::new();
        for _ in 0..levels {
            let document = serde_json::json!({"schemaVersion": 2, "manifests": inner});
            let document = serde_json::to_vec(&document).unwrap();
            inner = vec![descriptor_of(&document); times];
            documents.insert(inner[0].digest.clone(), document);
        }
        (documents, inner[0].clone())
    }

    #[test]
    fn each_manifest_is_read_once_and_entered_once_for_each_repository() {
        let (documents, root) = nested(64, 2);
        let mut reads = 0;
        let tree = Tree::read([&root, &root].into_iter(), MANY, |digest| {
            reads += 1;
            Ok(documents[digest].clone())
        });
        let tree = tree.unwrap();
        assert_eq!((tree.len(), reads), (64, 64));
        let (a, b) = (repository("a"), repository("b"));
        let roots = [(&a, &root.digest), (&a, &root.digest), (&b, &root.digest)];
        let orders = tree.order(roots.into_iter(), MANY).unwrap();
        assert_eq!(orders.iter().map(Vec::len).collect::<Vec<_>>(), [64, 0, 64]);
        // Parts come before the manifests that contain them.
        assert_eq!(orders[0][0].children, Vec::<usize>::new());
        assert_eq!(orders[0][63].digest, root.digest);
    }

    #[test]
    fn what_costs_too_much_is_refused_before_it_is_entered() {
        let (documents, root) = nested(3, 4);
        let bytes: u64 = documents.values().map(|document| document.len() as u64).sum();
        let read = |limits| {
            Tree::read([&root].into_iter(), limits, |digest| Ok(documents[digest].clone()))
        };
        let exact = Limits { bytes, parts: 8 };
        let tree = read(exact).unwrap();
        for (limits, is_read) in [
            (exact, true),
            (Limits { bytes: bytes - 1, ..exact }, false),
            (Limits { parts: 7, ..exact }, false),
        ] {
            assert_eq!(read(limits).is_ok(), is_read, "{limits:?}");
        }
        // A second repository counts the same again.
        let (a, b) = (repository("a"), repository("b"));
        let twice = || [(&a, &root.digest), (&b, &root.digest)].into_iter();
        assert!(tree.order(twice(), exact).is_err());
        assert!(tree.order(twice(), Limits { bytes: 2 * bytes, parts: 16 }).is_ok());
    }

    #[test]
    fn a_media_type_has_a_bounded_length() {
        for (length, is_taken) in [(255, true), (256, false)] {
            let root = Descriptor { media_type: "x".repeat(length), ..descriptor_of(b"") };
            let document = br#"{"schemaVersion": 2}"#.to_vec();
            let tree = Tree::read([&root].into_iter(), MANY, |_| Ok(document.clone()));
            assert_eq!(tree.is_ok(), is_taken, "{length}");
        }
    }
}
