//! Groups by the bytes of their keys.
use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Numbers groups. The numbers (**slots**) depend on history, so they decide nothing but where a group's state is in memory.
pub(in crate::operators) struct GroupIndex {
    converter: RowConverter,
    keyed: bool,
    table: HashTable<u32>,
    /// By slot; empty for slots that are free.
    keys: Vec<Box<[u8]>>,
    free: Vec<u32>,
    key_bytes: usize,
}

impl GroupIndex {
    pub fn new(fields: &[FieldRef]) -> Result<Self> {
        let converter = RowConverter::new(fields.iter().map(|f| SortField::new(f.data_type().clone())).collect())?;
        Ok(Self {
            converter,
            keyed: !fields.is_empty(),
            table: HashTable::new(),
            keys: Vec::new(),
            free: Vec::new(),
            key_bytes: 0,
        })
    }

    /// Slots are below this.
    pub fn slots(&self) -> usize {
        self.keys.len()
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn bytes(&self) -> usize {
        self.key_bytes + self.keys.len() * size_of::<Box<[u8]>>() + self.table.capacity() * 5
    }

    pub fn key(&self, slot: u32) -> &[u8] {
        &self.keys[slot as usize]
    }

    /// The slot of each row's group.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        if !self.keyed {
            return Ok(if rows == 0 { Vec::new() } else { vec![self.intern_key(&[]); rows] });
        }
        let encoded = self.converter.convert_columns(columns)?;
        Ok(encoded.iter().map(|row| self.intern_key(row.data())).collect())
    }

    pub fn intern_key(&mut self, key: &[u8]) -> u32 {
        let hash = xxh3_64(key);
        if let Some(slot) = self.table.find(hash, |s| &*self.keys[*s as usize] == key) {
            return *slot;
        }
        self.key_bytes += key.len();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.keys[slot as usize] = key.into();
                slot
            }
            None => {
                self.keys.push(key.into());
                (self.keys.len() - 1) as u32
            }
        };
        self.table.insert_unique(hash, slot, |s| xxh3_64(&self.keys[*s as usize]));
        slot
    }

    /// Forgets a group; its slot will be another group's.
    pub fn release(&mut self, slot: u32) {
        let key = std::mem::take(&mut self.keys[slot as usize]);
        if let Ok(entry) = self.table.find_entry(xxh3_64(&key), |s| *s == slot) {
            entry.remove();
            self.key_bytes -= key.len();
            self.free.push(slot);
        }
    }

    /// The keys in these columns.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        if !self.keyed {
            return Ok(vec![Box::default(); rows]);
        }
        Ok(self.converter.convert_columns(columns)?.iter().map(|row| row.data().into()).collect())
    }

    /// The key columns of these groups.
    pub fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        if !self.keyed {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(slots.iter().map(|s| parser.parse(&self.keys[*s as usize])))?)
    }

    /// A group's key, for messages.
    pub fn show(&self, slot: u32) -> String {
        let shown = self.columns(&[slot]).map(|columns| {
            let values = columns.iter().map(|c| arrow::util::display::array_value_to_string(c, 0).unwrap_or_default());
            values.collect::<Vec<_>>().join(", ")
        });
        format!("({})", shown.unwrap_or_default())
    }
}
