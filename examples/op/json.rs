//! What a parser of JSON takes without a word: a name that is given twice, of which the last one counts; and an object written as a
//! list, whose fields are read by their order.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Refuses a name that is given twice in one object, and lists of anything but extents and offsets.
pub fn check_header(json: &[u8]) -> serde_json::Result<()> {
    serde_json::from_slice::<Checked<true>>(json).map(drop)
}

/// Refuses a name that is given twice in one object, and lists: no option is one.
pub fn check_config(json: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Checked<false>>(json).map(drop)
}

/// Any value that passes.
struct Checked<const LISTS: bool>;

impl<'de, const LISTS: bool> Deserialize<'de> for Checked<LISTS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de, const LISTS: bool> Visitor<'de> for Checked<LISTS> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format!("`{name}` is given twice")));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        if !LISTS {
            return Err(A::Error::custom("a list, where options are given by name"));
        }
        while list.next_element::<u64>()?.is_some() {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}
