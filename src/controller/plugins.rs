//! The TriggerPlugins as the controller sees them, compiled once for each generation.

use crate::api::TriggerPlugin;
use crate::plugin::{Mistake, Plugin};
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is known of the TriggerPlugin that a Subscription names.
#[derive(Clone)]
pub enum PluginState {
    /// There is none with this name.
    NotFound,
    /// It has mistakes, as one line.
    Broken(String),
    /// It compiles.
    Ready(Arc<Plugin>),
}

type Compiled = Result<Arc<Plugin>, Arc<Vec<Mistake>>>;

/// The result of a compilation, with the UID and generation that it is about.
struct Known {
    uid: Option<String>,
    generation: Option<i64>,
    result: Compiled,
}

/// Compiles TriggerPlugins, each generation once.
#[derive(Default)]
pub struct Compiler {
    compiled: Mutex<HashMap<String, Known>>,
}

/// Reads and compiles TriggerPlugins.
pub struct Plugins {
    store: Store<TriggerPlugin>,
    compiler: Compiler,
}

impl Plugins {
    /// Plugins from this store.
    pub fn new(store: Store<TriggerPlugin>) -> Self {
        Self { store, compiler: Compiler::default() }
    }

    /// The store that the plugins are read from.
    pub fn store(&self) -> &Store<TriggerPlugin> {
        &self.store
    }

    /// The resource with this name.
    pub fn resource(&self, name: &str) -> Option<Arc<TriggerPlugin>> {
        self.store.get(&ObjectRef::new(name))
    }

    /// The plugin with this name.
    pub fn get(&self, name: &str) -> PluginState {
        let Some(resource) = self.resource(name) else {
            self.compiler.forget(name);
            return PluginState::NotFound;
        };
        match self.compile(&resource) {
            Ok(plugin) => PluginState::Ready(plugin),
            Err(mistakes) => PluginState::Broken(crate::plugin::join(&mistakes)),
        }
    }

    /// Compiles a plugin, or gives what the last compilation of the same generation gave.
    ///
    /// # Errors
    /// Every mistake in the plugin.
    pub fn compile(&self, resource: &TriggerPlugin) -> Compiled {
        self.compiler.compile(resource)
    }
}

impl Compiler {
    /// Compiles a plugin, or gives what the last compilation of the same generation gave.
    ///
    /// # Errors
    /// Every mistake in the plugin.
    pub fn compile(&self, resource: &TriggerPlugin) -> Compiled {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, uid, generation) = (resource.name_any(), resource.uid(), resource.metadata.generation);
        if let Some(known) = compiled.get(&name)
            && (&known.uid, known.generation) == (&uid, generation)
        {
            return known.result.clone();
        }
        let result = Plugin::compile(&name, &resource.spec).map(Arc::new).map_err(Arc::new);
        compiled.insert(name, Known { uid, generation, result: result.clone() });
        result
    }

    fn forget(&self, name: &str) {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
