"""What one action holds of its server while it is there, whoever sent it: an executor with a directory, and a slot."""

from rakefarm.server.executors import Executor
from rakefarm.server.grants import Grant
from rakefarm.server.sandbox import ActionDirectory
from rakefarm.server.workplace import Workplace


class Holding:
    """Taken piece by piece, and all of it given back: `tidy` after `make_directory`, `release` in any case."""

    def __init__(self, work: Workplace) -> None:
        self._work = work
        self._directory: ActionDirectory | None = None
        self._executor: Executor | None = None
        self.grant: Grant | None = None
        """The slot and the licences, once they are had."""
        self.at_work = False
        """While the executor runs a command, or can't be trusted to run none."""

    @property
    def executor(self) -> Executor:
        """The one in whose directory the command will be; between `make_directory` and `tidy`."""
        assert self._executor is not None
        return self._executor

    def make_directory(self) -> ActionDirectory:
        """Where inputs go and the command runs. An executor comes first, since its commands see nothing but what is
        below its own directory. Raises ExecutorLost, or OSError when no directory can be made; nothing is held then."""
        executor = self._work.executors.take()
        try:
            directory = ActionDirectory(executor.home, self._work.executors.confinement.uid)
        except OSError:
            self._work.executors.drop(executor)
            raise
        self._executor, self._directory = executor, directory
        return directory

    def tidy(self) -> None:
        """Remove the directory; an executor that is left with something of it, or with a command, is ended."""
        executor, self._executor = self._executor, None
        directory, self._directory = self._directory, None
        assert executor is not None
        assert directory is not None
        if not self.at_work and directory.remove():
            self._work.executors.give_back(executor)
        else:
            self._work.executors.drop(executor)

    def occupy(self, run_s: float, leased: bool) -> None:
        """The slot of `grant` is at work from now on, for some `run_s` seconds as far as anybody knows."""
        assert self.grant is not None
        self._work.board.begin(self.grant.slot, run_s, leased)

    def release(self) -> None:
        """Give the slot back, if there is one."""
        grant, self.grant = self.grant, None
        if grant is not None:
            self._work.board.end(grant.slot)
            self._work.board.let_go(grant.slot)
            self._work.grants.give_back(grant)
