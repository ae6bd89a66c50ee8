"""The server of llama.cpp as the package xllamacpp carries it, under the flags of `llama-server` that a matrix here gives."""

import argparse
import signal
import sys
import time

import xllamacpp

flags = argparse.ArgumentParser()
flags.add_argument("-m", "--model", required=True)
flags.add_argument("--host", default="127.0.0.1")
flags.add_argument("--port", type=int, required=True)
flags.add_argument("-c", "--ctx-size", type=int, default=4096)
flags.add_argument("-np", "--parallel", type=int, default=1)
flags.add_argument("-kvu", "--kv-unified", action="store_true")
flags.add_argument("-t", "--threads", type=int, default=1)
flags.add_argument("--slot-save-path")
flags.add_argument("--cache-ram", type=int)
# Always so here.
flags.add_argument("--metrics", action="store_true")
given = flags.parse_args()

parameters = xllamacpp.CommonParams()
parameters.model.path = given.model
parameters.hostnames = [given.host]
parameters.port = given.port
parameters.n_ctx = given.ctx_size
parameters.n_parallel = given.parallel
parameters.kv_unified = given.kv_unified
parameters.cpuparams.n_threads = given.threads
parameters.cpuparams_batch.n_threads = given.threads
if given.slot_save_path:
    parameters.slot_save_path = given.slot_save_path
if given.cache_ram is not None:
    parameters.cache_ram_mib = given.cache_ram
parameters.endpoint_metrics = True
parameters.endpoint_slots = True
parameters.endpoint_props = True
parameters.n_threads_http = 16
parameters.ui = False
parameters.fit_params = False

server = xllamacpp.Server(parameters)
print("listening at", server.listening_address, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    time.sleep(3600)
