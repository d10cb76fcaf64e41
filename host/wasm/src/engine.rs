//! The wasmtime engine and its settings. Which figures stand behind each setting: the
//! table in `host/wasm/README.md`.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::{
    Cache, CacheConfig, Config, Enabled, InstanceAllocationStrategy, OptLevel,
    PoolingAllocationConfig,
};

use crate::component::LoadError;
use crate::cx::CallCx;
use crate::epoch::Ticker;
use crate::stock::Stock;

/// The most instances that an engine can have: beside each is room for 4 GiB of memory,
/// of the 128 TiB that a process can address, and four of the 65530 mappings that
/// `vm.max_map_count` allows.
pub const MAX_INSTANCES: u32 = 16_000;

/// What differs between installations.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Where compiled images are kept between runs; `None` keeps none. The
    /// folder is made with mode 0700: who can write there can run code here.
    pub cache: Option<PathBuf>,
    /// Instances that can live at a time, at most [`MAX_INSTANCES`]. Half of them are
    /// for workers, see [`Engine::share`], the other half may wait to be taken by them.
    pub instances: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            cache: None,
            instances: 1000,
        }
    }
}

impl EngineSettings {
    /// The [`instances`](Self::instances) of which workers have so many.
    #[must_use]
    pub fn for_workers(instances: usize) -> u32 {
        let all = instances.saturating_mul(2).saturating_add(TRIALS);
        u32::try_from(all).unwrap_or(u32::MAX).min(MAX_INSTANCES)
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The folder for compiled images cannot be used.
    #[error("cache folder {path}: {source}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// This machine lacks something that the sandbox needs.
    #[error("webassembly engine: {0}")]
    Engine(String),
    /// The thread that ticks cannot be started.
    #[error("epoch thread: {0}")]
    Thread(std::io::Error),
}

/// The engine: one for the process. Clones share it.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) linker: Arc<wasmtime::component::Linker<CallCx>>,
    pub(crate) random_key: [u8; 32],
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) stock: Stock,
    /// Those of workers; `None`: as many as there is memory for.
    instances: Option<usize>,
}

/// Instances that are tried out and thrown away at once, by checks of a configuration.
const TRIALS: usize = 32;

impl Engine {
    /// An engine with every capability linked, and its tick thread.
    ///
    /// # Errors
    /// When the cache folder or the machine refuses.
    pub fn new(settings: &EngineSettings) -> Result<Self, EngineError> {
        let mut config = config();
        if let Some(path) = &settings.cache {
            config.cache(Some(open_cache(path)?));
        }
        let instances = settings.instances.min(MAX_INSTANCES);
        config.allocation_strategy(pooling(instances));
        let half = (instances as usize).saturating_sub(TRIALS) / 2;
        let (inner, instances) = match wasmtime::Engine::new(&config) {
            Ok(engine) => (engine, Some(half)),
            Err(pooling) => {
                // Address space may be limited (ulimit -v, small containers).
                config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
                let engine = wasmtime::Engine::new(&config)
                    .map_err(|error| EngineError::Engine(format!("{error:#}")))?;
                tracing::warn!(error = %pooling, "no pool of instances; each is mapped when made");
                (engine, None)
            }
        };
        let linker = crate::linker::link(&inner)
            .map_err(|error| EngineError::Engine(format!("{error:#}")))?;
        let ticker = Ticker::start(inner.weak()).map_err(EngineError::Thread)?;
        let mut random_key = [0; 32];
        getrandom::fill(&mut random_key)
            .map_err(|error| EngineError::Engine(format!("no randomness: {error}")))?;
        Ok(Self {
            inner,
            linker: Arc::new(linker),
            random_key,
            ticker,
            stock: Stock::new(half),
            instances,
        })
    }

    /// The instances that each of so many workers may [keep](crate::Pools::keeping).
    #[must_use]
    pub fn share(&self, workers: usize) -> usize {
        match self.instances {
            Some(instances) => instances / workers.max(1),
            None => usize::MAX,
        }
    }

    /// Compiles bytes; finds them compiled if the cache has them.
    pub(crate) fn compile(
        &self,
        bytes: &[u8],
    ) -> Result<wasmtime::component::Component, LoadError> {
        wasmtime::component::Component::from_binary(&self.inner, bytes)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))
    }
}

/// The settings that every figure of the boundary stands on; the bench of the
/// bare engine uses the same.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .max_wasm_stack(256 << 10)
        .async_stack_size(512 << 10)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8))
        .gc_support(false)
        .shared_memory(false);
    config
}

/// What an instance consists of at most. A compiled language has one memory; a component with an
/// interpreter has eleven modules, one memory that is used, two that are as good as empty, and four
/// tables.
const MODULES: u32 = 12;
const MEMORIES: u32 = 3;
const TABLES: u32 = 4;

/// Room for memories costs addresses, 4 GiB for each and all of them in one piece: a program is
/// loaded at 85 TiB, so that there is room below it for so many. Up to 6000 instances all of them
/// may have an interpreter, of [`MAX_INSTANCES`] a thousand.
const MAX_MEMORIES: u32 = 18_000;

/// The pool of instances that [`Engine::new`] sets up; the bench uses the same.
#[must_use]
pub fn pooling(instances: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::default();
    // Room that nobody uses costs nothing but addresses.
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(MODULES))
        .total_memories(instances.saturating_mul(MEMORIES).min(MAX_MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .linear_memory_keep_resident(2 << 20)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

fn open_cache(path: &Path) -> Result<Cache, EngineError> {
    let failed = |source| EngineError::Cache {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let mut permissions = std::fs::metadata(path).map_err(failed)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        std::fs::set_permissions(path, permissions).map_err(failed)?;
    }
    // wasmtime wants an absolute path.
    let absolute = std::fs::canonicalize(path).map_err(failed)?;
    let mut config = CacheConfig::new();
    config.with_directory(absolute);
    Cache::new(config).map_err(|error| EngineError::Engine(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_folder_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        for path in [open, folder.path().join("new/below")] {
            let settings = EngineSettings {
                cache: Some(path.clone()),
                instances: 4,
            };
            Engine::new(&settings).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
    }

    /// Address space costs next to nothing until it is used.
    #[test]
    fn the_largest_pool_is_made_in_no_time() {
        let begun = std::time::Instant::now();
        let engine = Engine::new(&EngineSettings {
            cache: None,
            instances: u32::MAX,
        })
        .unwrap();
        assert_eq!(engine.share(1), (MAX_INSTANCES as usize - TRIALS) / 2);
        assert_eq!(engine.share(100), 79);
        let took = begun.elapsed();
        assert!(took < std::time::Duration::from_millis(500), "{took:?}");
    }

    #[test]
    fn a_cache_folder_that_cannot_be_made_is_an_error_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("cache");
        let settings = EngineSettings {
            cache: Some(below.clone()),
            instances: 4,
        };
        let error = Engine::new(&settings).err().unwrap().to_string();
        assert!(error.contains(&*below.to_string_lossy()), "{error}");
    }
}
