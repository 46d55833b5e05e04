//! Files below a prefix, as any tool sees them that lists the folder: in a bucket or on the local disk.

use std::path::Path as LocalPath;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::wait::block_on;

/// The files of a bucket or of a local folder. Keys are relative to it.
pub struct Files {
    store: Arc<dyn ObjectStore>,
}

impl Files {
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// The files of a local folder.
    pub fn local(folder: &LocalPath) -> Self {
        let store = LocalFileSystem::new_with_prefix(folder)
            .unwrap_or_else(|e| panic!("cannot read the folder {}: {e}", folder.display()));
        Self::new(Arc::new(store))
    }

    /// Every file below `prefix`, ordered by key.
    pub fn list(&self, prefix: &str) -> Vec<ObjectMeta> {
        let path = path_of(prefix);
        let mut found: Vec<ObjectMeta> = block_on(self.store.list(Some(&path)).try_collect())
            .unwrap_or_else(|e| panic!("cannot list {prefix}: {e}"));
        found.sort_by(|a, b| a.location.cmp(&b.location));
        found
    }

    /// The keys below `prefix` that end with `suffix`, in order.
    pub fn keys(&self, prefix: &str, suffix: &str) -> Vec<String> {
        let keys = self.list(prefix).into_iter().map(|meta| meta.location.to_string());
        keys.filter(|key| key.ends_with(suffix)).collect()
    }

    pub fn get(&self, key: &str) -> Bytes {
        let path = path_of(key);
        block_on(async { self.store.get(&path).await?.bytes().await })
            .unwrap_or_else(|e| panic!("cannot read {key}: {e}"))
    }

    pub fn put(&self, key: &str, content: impl Into<PutPayload>) {
        let (path, content) = (path_of(key), content.into());
        block_on(self.store.put(&path, content)).unwrap_or_else(|e| panic!("cannot write {key}: {e}"));
    }

    pub fn delete(&self, key: &str) {
        block_on(self.store.delete(&path_of(key))).unwrap_or_else(|e| panic!("cannot delete {key}: {e}"));
    }

    /// The rows of every `.parquet` file below `prefix`.
    pub fn parquet(&self, prefix: &str) -> Vec<RecordBatch> {
        self.keys(prefix, ".parquet").iter().flat_map(|key| parquet_rows(key, self.get(key))).collect()
    }

    /// The rows of every `.json` file below `prefix`, one object a line, as `schema`.
    pub fn json(&self, prefix: &str, schema: &Schema) -> Vec<RecordBatch> {
        let contents: Vec<Bytes> = self.keys(prefix, ".json").iter().map(|key| self.get(key)).collect();
        json_rows(&Arc::new(schema.clone()), contents.iter().map(Bytes::as_ref))
    }
}

/// A key as it stands in the store, where `%` is a character like others.
fn path_of(key: &str) -> Path {
    Path::parse(key).unwrap_or_else(|e| panic!("{key:?} is no key: {e}"))
}

/// The rows of one Parquet file; panics when it is not complete.
pub fn parquet_rows(name: &str, content: Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(content)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .unwrap_or_else(|e| panic!("{name} is no Parquet file: {e}"));
    reader.map(|batch| batch.unwrap_or_else(|e| panic!("cannot read the rows of {name}: {e}"))).collect()
}

/// The rows of JSON texts of one or more objects each, as `schema`. A field that the schema lacks is an error.
pub fn json_rows<'a>(schema: &SchemaRef, texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<RecordBatch> {
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(schema))
        .with_strict_mode(true)
        .build_decoder()
        .unwrap_or_else(|e| panic!("no JSON reader for {schema}: {e}"));
    let mut rows = Vec::new();
    for text in texts {
        let fail = |e: ArrowError| -> usize { panic!("{e} in {:?}", String::from_utf8_lossy(text)) };
        let mut rest = text;
        while !rest.is_empty() {
            rest = &rest[decoder.decode(rest).unwrap_or_else(fail)..];
            if !rest.is_empty() {
                rows.extend(decoder.flush().unwrap_or_else(|e| panic!("cannot read JSON as {schema}: {e}")));
            }
        }
    }
    rows.extend(decoder.flush().unwrap_or_else(|e| panic!("cannot read JSON as {schema}: {e}")));
    rows
}
