//! Options of every RocksDB of this process, and what they share: threads, block cache, memtable budget.
//!
//! An executor may hold hundreds of task stores, so each is small by itself and the sum is bounded here.
use std::sync::LazyLock;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, Options, WriteBufferManager};

use crate::StateError;

const MIB: usize = 1 << 20;
/// Block cache of all stores together.
const BLOCK_CACHE: usize = 32 * MIB;
/// Memtables of all stores together; at nine tenths of it stores begin to flush early.
const MEMTABLES: usize = 64 * MIB;
/// Memtable of one store.
const MEMTABLE: usize = 4 * MIB;
/// Bound of one file, and so of the memory that its upload takes.
const SST: u64 = 16 * MIB as u64;
/// Values from this size on stand in files of their own, which compaction does not write again.
const LARGE_VALUE: u64 = 32 << 10;

struct Shared {
    env: Result<Env, rocksdb::Error>,
    cache: Cache,
    memtables: WriteBufferManager,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared {
    env: Env::new().map(|mut env| {
        env.set_high_priority_background_threads(1);
        env.set_low_priority_background_threads(2);
        env
    }),
    cache: Cache::new_lru_cache(BLOCK_CACHE),
    memtables: WriteBufferManager::new_write_buffer_manager(MEMTABLES, false),
});

/// Options common to task stores and the log.
pub fn options() -> Result<Options, StateError> {
    let env = SHARED
        .env
        .as_ref()
        .map_err(|e| StateError::Config { message: format!("cannot set up RocksDB's environment: {e}"), hint: None })?;
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&SHARED.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);

    let mut options = Options::default();
    options.set_env(env);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&SHARED.memtables);
    options.set_write_buffer_size(MEMTABLE);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(SST);
    options.set_max_bytes_for_level_base(4 * SST);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(LARGE_VALUE);
    options.set_blob_file_size(SST);
    options.set_blob_compression_type(DBCompressionType::Lz4);
    options.set_enable_blob_gc(true);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(1);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    Ok(options)
}
