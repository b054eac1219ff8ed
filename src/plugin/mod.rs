//! A compiled TriggerPlugin.
