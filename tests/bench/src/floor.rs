//! The cheapest call that there is: a component whose one export does nothing. What it
//! costs tells one machine from another, so its settings are its own: the sandbox's may
//! change, and what they cost must not count as the machine's.

use wasm_encoder::{
    CodeSection, ComponentBuilder, ComponentExportKind, ExportKind, ExportSection, Function,
    FunctionSection, Instruction, Module, ModuleArg, TypeSection,
};
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Config, Engine, Store};

/// An instance of the component.
pub struct Floor {
    store: Store<()>,
    nothing: TypedFunc<(), ()>,
}

impl Default for Floor {
    fn default() -> Self {
        Self::new()
    }
}

impl Floor {
    /// Compiles and instantiates it.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new() -> Self {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .epoch_interruption(true)
            .gc_support(false);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_binary(&engine, &component()).unwrap();
        let mut store = Store::new(&engine, ());
        // Nothing ticks here: the check stays, the deadline never comes.
        store.set_epoch_deadline(1);
        let instance = Linker::new(&engine)
            .instantiate(&mut store, &component)
            .unwrap();
        let nothing = instance.get_typed_func(&mut store, "nothing").unwrap();
        Self { store, nothing }
    }

    /// Calls the export.
    ///
    /// # Panics
    /// When it traps.
    pub fn call(&mut self) {
        self.nothing.call(&mut self.store, ()).unwrap();
    }
}

fn component() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut exports = ExportSection::new();
    exports.export("nothing", ExportKind::Func, 0);
    let mut code = CodeSection::new();
    let mut body = Function::new([]);
    body.instruction(&Instruction::End);
    code.function(&body);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&exports)
        .section(&code);

    let mut component = ComponentBuilder::default();
    let module = component.core_module(None, &module);
    let instance = component.core_instantiate(None, module, [] as [(&str, ModuleArg); 0]);
    let function = component.core_alias_export(None, instance, "nothing", ExportKind::Func);
    let (ty, mut signature) = component.type_function(None);
    signature
        .params([] as [(&str, wasm_encoder::ComponentValType); 0])
        .result(None);
    let lifted = component.lift_func(None, function, ty, []);
    component.export("nothing", ComponentExportKind::Func, lifted, None);
    component.finish()
}
