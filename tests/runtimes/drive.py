"""Drives one adapter in whatever interpreter runs this: ``drive.py ROOT MODEL TRIAL RUNS``; answers in answer.json."""

import importlib.util
import json
import sys
import time

import numpy as np

root, model, trial, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
sys.path[:] = [path for path in sys.path if not path.endswith("tests/runtimes")]
spec = importlib.util.spec_from_file_location("agent", root + "/device_agents/python/agent.py")
agent = importlib.util.module_from_spec(spec)
sys.modules["agent"] = agent
spec.loader.exec_module(agent)
answer = {}
try:
    adapter = agent.load_adapter(trial["runtime"])
    adapter.import_runtime()
    if trial["delegate"] == "probe":
        answer["probe"] = adapter.probe()
    else:
        session = adapter.load(model, trial)
        answer["described"] = session.describe()
        given = dict(np.load("in.npz"))
        if not given:
            given = agent.Inputs(None, "probe", {"input_seed": 7}, answer["described"]).one(0)
        session.bind({name: value.copy() for name, value in given.items()})
        junk = [np.full(4096, 1e30, np.float32) for _ in range(64)]  # takes the place of whatever was freed
        times = []
        for _ in range(runs):
            begin = time.perf_counter_ns()
            session.run()
            times.append(time.perf_counter_ns() - begin)
        outputs = session.outputs()
        answer["outputs"] = list(outputs)
        answer["run_ns"] = times
        np.savez("out.npz", **{f"{index:03d}": value for index, value in enumerate(outputs.values())})
        answer["described"].update(session.evidence())
        session.close()
except Exception as problem:
    if not hasattr(problem, "code"):
        raise
    answer["error"] = {"code": problem.code, "message": problem.message, "advice": problem.advice}
with open("answer.json", "w") as file:
    json.dump(agent.clean(answer), file)
