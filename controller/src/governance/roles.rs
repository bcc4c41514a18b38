//! Who was at an address before: what fails may fail since that has changed.

use super::compare::End;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::Timestamp;
use std::collections::HashMap;

/// Addresses that are remembered. When there are more, all are forgotten: it is a hint.
const MOST: usize = 65_536;

/// Who was seen last at which address, and since when that is somebody else than before.
#[derive(Debug, Default)]
pub struct Roles {
    of: HashMap<Addr, (SpiffeId, Option<Timestamp>)>,
}

impl Roles {
    /// Notes who is there.
    pub fn note(&mut self, end: &End, at: Timestamp) {
        let End::Identified { id, address, .. } = end else { return };
        match self.of.get_mut(address) {
            Some((known, _)) if known == id => {}
            Some(known) => *known = (id.clone(), Some(at)),
            None => {
                if self.of.len() >= MOST {
                    self.of.clear();
                }
                self.of.insert(*address, (id.clone(), None));
            }
        }
    }

    /// Since when somebody else is there, in words.
    pub fn changed(&self, end: &End) -> Option<String> {
        let (id, since) = self.of.get(&end.address())?;
        Some(format!("{} was first seen as {id} at {:.0}", end.address().to_ip(), (*since)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_address_that_becomes_somebody_else_says_since_when() {
        let end = |path: &str| End::Identified {
            id: format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID"),
            labels: BTreeMap::new(),
            address: Addr::v4([10, 1, 0, 2]),
        };
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let mut roles = Roles::default();
        roles.note(&end("a"), at(1));
        assert_eq!(roles.changed(&end("a")), None);
        roles.note(&end("b"), at(2));
        roles.note(&end("b"), at(3));
        let text = "10.1.0.2 was first seen as spiffe://a.example/b at 1970-01-01T00:00:02Z";
        assert_eq!(roles.changed(&end("b")).as_deref(), Some(text));
    }
}
