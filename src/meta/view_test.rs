use proptest::prelude::*;

use super::*;

/// Tables in memory, by the simplest means.
#[derive(Clone, Debug, Default)]
struct Base(BTreeMap<Vec<u8>, Vec<u8>>);

impl View for Base {
    fn get(&self, _: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, _: Table, range: Range<&[u8]>, limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        let pairs = self.0.iter().filter(|(key, _)| range.start <= &key[..] && &key[..] < range.end);
        Ok(pairs.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

proptest! {
    #[test]
    fn layers_show_what_one_map_would(
        base in prop::collection::btree_map(prop::collection::vec(0u8..4, 0..3), any::<u8>(), 0..20),
        lower in prop::collection::vec((prop::collection::vec(0u8..4, 0..3), any::<Option<u8>>()), 0..12),
        upper in prop::collection::vec((prop::collection::vec(0u8..4, 0..3), any::<Option<u8>>()), 0..12),
        from in prop::collection::vec(0u8..4, 0..3),
        to in prop::collection::vec(0u8..5, 0..3),
        limit in 0usize..8,
    ) {
        let base = Base(base.into_iter().map(|(key, value)| (key, vec![value])).collect());
        let mut expected = base.clone();
        let mut first = Overlay::new(&base);
        write(&mut first, &mut expected, &lower);
        let mut second = Overlay::new(&first);
        write(&mut second, &mut expected, &upper);
        let range = &from[..]..&to[..];
        let found = second.scan(Table::Kv, range.clone(), limit).unwrap();
        prop_assert_eq!(&found, &expected.scan(Table::Kv, range.clone(), limit).unwrap());
        for (key, _) in lower.iter().chain(&upper) {
            prop_assert_eq!(second.get(Table::Kv, key).unwrap(), expected.get(Table::Kv, key).unwrap());
        }
        let writes = second.into_writes();
        let mut both = Overlay::new(&base);
        both.absorb(first.into_writes());
        both.absorb(writes);
        prop_assert_eq!(&both.scan(Table::Kv, range.clone(), limit).unwrap(), &found);
        let mut written = MemoryTables::default();
        written.write([(Table::Kv, base.0.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect())].into());
        written.write(both.into_writes());
        prop_assert_eq!(written.scan(Table::Kv, range, limit).unwrap(), found);
    }
}

fn write(overlay: &mut Overlay<'_>, expected: &mut Base, writes: &[(Vec<u8>, Option<u8>)]) {
    for (key, value) in writes {
        match value {
            Some(value) => {
                overlay.put(Table::Kv, key.clone(), vec![*value]);
                expected.0.insert(key.clone(), vec![*value]);
            }
            None => {
                overlay.delete(Table::Kv, key.clone());
                expected.0.remove(key);
            }
        }
    }
}
