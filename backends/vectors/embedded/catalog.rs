//! The collections of a store by name, and its folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::collection::EmbeddedCollection;
use super::disk::{CollectionRecord, DamagedFile, Folder, Log, Recovered, recover, too_large};
use super::shared::{IdSequence, Shared};
use super::snapshot::Snapshot;
use crate::vectors::{Collection, CollectionConfig, validation};
use crate::{Error, ErrorKind, Result};

pub(super) struct Catalog {
    pub(super) shared: Arc<Shared>,
    collections: RwLock<BTreeMap<String, EmbeddedCollection>>,
    disk: Option<Disk>,
}

struct Disk {
    path: PathBuf,
    sync: bool,
    /// Set while it is open.
    folder: Mutex<Option<Arc<Folder>>>,
    /// Held while the folder is opened or a collection created, perhaps on another thread.
    changing: Arc<tokio::sync::Mutex<()>>,
    damage: Mutex<Vec<DamagedFile>>,
}

impl Catalog {
    /// No collections; with a folder and whether writes are synced, those that are in it once it is opened.
    pub(super) fn new(shared: Arc<Shared>, disk: Option<(PathBuf, bool)>) -> Self {
        let disk = disk.map(|(path, sync)| Disk {
            path,
            sync,
            folder: Mutex::default(),
            changing: Arc::default(),
            damage: Mutex::default(),
        });
        Self { shared, collections: RwLock::default(), disk }
    }

    pub(super) fn damage(&self) -> Vec<DamagedFile> {
        self.disk.as_ref().map(|disk| disk.damage.lock().clone()).unwrap_or_default()
    }

    /// Number of collections and of entities.
    pub(super) fn count(&self) -> (u64, u64) {
        let collections = self.collections.read();
        let entities = collections.values().map(|collection| collection.len() as u64).sum();
        (collections.len() as u64, entities)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.collections.read().keys().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<EmbeddedCollection> {
        self.shared.check_open()?;
        self.collections.read().get(name).cloned().ok_or_else(|| {
            let message = format!("collection {name:?} does not exist");
            Error::new(ErrorKind::NotFound, "vectors.embedded", message).not_sent()
        })
    }

    /// Opens the folder of a durable store, unless it is open. It continues if the future is dropped.
    pub(super) async fn open(this: &Arc<Self>) -> Result<()> {
        this.shared.check_open()?;
        let Some(disk) = &this.disk else { return Ok(()) };
        if disk.folder.lock().is_some() {
            return Ok(());
        }
        let guard = Arc::clone(&disk.changing).lock_owned().await;
        if disk.folder.lock().is_some() {
            return Ok(());
        }
        let catalog = Arc::clone(this);
        let job = move || {
            let _guard = guard;
            catalog.read_folder()
        };
        this.shared.write_threads.run(job).await?
    }

    fn read_folder(&self) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let (folder, files) = Folder::open(&disk.path, disk.sync)?;
        let (mut collections, mut damage) = (BTreeMap::new(), Vec::new());
        let read = files.into_iter().try_for_each(|file| {
            self.shared.check_open()?;
            self.read_file(&folder, file, &mut collections, &mut damage)
        });
        let mut all = self.collections.write();
        // Under the lock, so that closing the store finds every collection.
        if let Err(error) = read.and_then(|()| self.shared.check_open()) {
            collections.values().for_each(|collection| drop(collection.remove()));
            return Err(error);
        }
        *all = collections;
        *disk.damage.lock() = damage;
        *disk.folder.lock() = Some(folder);
        Ok(())
    }

    fn read_file(
        &self,
        folder: &Arc<Folder>,
        file: PathBuf,
        collections: &mut BTreeMap<String, EmbeddedCollection>,
        damage: &mut Vec<DamagedFile>,
    ) -> Result<()> {
        let budget = &self.shared.budget;
        let free = budget.max().saturating_sub(budget.used());
        let (recovered, damaged) = recover(folder, file.clone(), free)?;
        damage.extend(damaged);
        let Some(Recovered { collection, snapshot, log }) = recovered else { return Ok(()) };
        let name = collection.config.collection_name.clone();
        if collections.contains_key(&name) {
            let message = format!("{} holds collection {name:?}, as an earlier file does", file.display());
            return Err(Error::new(ErrorKind::Corrupt, "vectors.embedded", message).not_sent());
        }
        let restored = EmbeddedCollection::new(&self.shared, collection, snapshot, |_| Ok(Some(log)));
        collections.insert(name, restored.map_err(|_| too_large(&file))?);
        Ok(())
    }

    /// The collection of this name; creates it if there is none. It continues if the future is dropped.
    pub(super) async fn get_or_create(
        this: &Arc<Self>,
        config: &CollectionConfig,
    ) -> Result<EmbeddedCollection> {
        Self::open(this).await?;
        let Some(disk) = &this.disk else { return this.create(config) };
        if let Some(existing) = this.existing(config)? {
            return Ok(existing);
        }
        let guard = Arc::clone(&disk.changing).lock_owned().await;
        let (catalog, config) = (Arc::clone(this), config.clone());
        let job = move || {
            let _guard = guard;
            catalog.create(&config)
        };
        this.shared.write_threads.run(job).await?
    }

    fn existing(&self, config: &CollectionConfig) -> Result<Option<EmbeddedCollection>> {
        let Ok(existing) = self.find(&config.collection_name) else {
            self.shared.check_open()?;
            return Ok(None);
        };
        validation::check_same_schema(existing.config(), config)?;
        Ok(Some(existing))
    }

    fn create(&self, config: &CollectionConfig) -> Result<EmbeddedCollection> {
        if let Some(existing) = self.existing(config)? {
            return Ok(existing);
        }
        let record = CollectionRecord::new(config, IdSequence::new());
        let folder = self.disk.as_ref().and_then(|disk| disk.folder.lock().clone());
        let create_log =
            |record: &CollectionRecord| folder.map(|folder| Log::create(&folder, record)).transpose();
        let created = EmbeddedCollection::new(&self.shared, record, Snapshot::default(), create_log)?;
        let mut collections = self.collections.write();
        // Under the lock, so that closing the store finds every collection, and two callers create one.
        let is_open = self.shared.check_open();
        if is_open.is_err() || collections.contains_key(&config.collection_name) {
            drop(collections);
            let deleted = created.delete_file();
            created.remove();
            is_open.and(deleted)?;
            return self.create(config);
        }
        collections.insert(config.collection_name.clone(), created.clone());
        Ok(created)
    }

    /// Drops a collection, after its running write. It continues if the future is dropped.
    pub(super) async fn drop_collection(this: &Arc<Self>, name: &str) -> Result<()> {
        let collection = this.find(name)?;
        let guard = collection.lock_writer().await;
        let (catalog, name) = (Arc::clone(this), name.to_owned());
        let job = move || {
            let _guard = guard;
            catalog.shared.check_open()?;
            // Another caller may have dropped it in the meantime, and created another.
            if !catalog.find(&name).is_ok_and(|current| current.is_same(&collection)) {
                return Ok(());
            }
            collection.delete_file()?;
            catalog.collections.write().remove(&name);
            drop(collection.remove());
            Ok(())
        };
        this.shared.write_threads.run(job).await?
    }

    /// Frees everything, after running writes, and closes the folder. Returns what could not be synced.
    pub(super) async fn close(&self) -> Vec<String> {
        // A folder that is being opened sees that the store is closed.
        let _changing = match &self.disk {
            Some(disk) => Some(disk.changing.lock().await),
            None => None,
        };
        let mut lost = Vec::new();
        let collections = self.collections.read().clone();
        for (name, collection) in collections {
            let _guard = collection.lock_writer().await;
            if !self.collections.read().contains_key(&name) {
                continue;
            }
            let syncing = collection.clone();
            let synced = self.shared.write_threads.run(move || syncing.sync()).await;
            if let Err(error) = synced.and_then(|synced| synced) {
                lost.push(format!("collection {name:?}: {error}"));
            }
            self.collections.write().remove(&name);
            let rows = collection.remove();
            // Freeing many rows takes a while.
            let _ = self.shared.write_threads.run(move || drop(rows)).await;
        }
        if let Some(disk) = &self.disk {
            disk.folder.lock().take();
        }
        lost
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.disk.as_ref().map(|disk| &disk.path);
        f.debug_struct("Catalog")
            .field("budget", &self.shared.budget)
            .field("path", &path)
            .finish_non_exhaustive()
    }
}
