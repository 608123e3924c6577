"""Sources that take a compiler as long as is asked for: from an empty file to heavy C++."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A sort of source file: what it is called in tables, its compiler, and how to write one."""

    name: str
    compiler: str
    suffix: str
    functions: int = 0
    headers: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """Compiles one, named by @."""
        return f"{self.compiler} -O2 -c @{self.suffix} -o @.o"

    def write(self, directory: str, number: int, padding_bytes: int = 0) -> str:
        """Write one, with a comment of that size that nobody else's file has; answers its name."""
        name = f"{self.name}-{number}"
        with open(os.path.join(directory, name + self.suffix), "wb") as file:
            for header in self.headers:
                file.write(f"#include <{header}>\n".encode())
            file.write(self._body().encode())
            if padding_bytes:
                text = os.urandom(padding_bytes // 2).hex()
                file.write(f"/* {text} */\n".encode())
        return name

    def _body(self) -> str:
        if self.headers:
            return _PLUS_PLUS
        return "".join(_FUNCTION.replace("@", str(index)) for index in range(self.functions))


_FUNCTION = """
int table_@[16];
int walk_@(int *from, int count)
{
    int sum = @;
    for (int i = 0; i < count; i++) {
        switch (from[i] & 7) {
        case 0: sum += table_@[sum & 15]; break;
        case 1: sum ^= from[i] << 3; break;
        case 2: sum = sum * 33 + i; break;
        case 3: table_@[i & 15] = sum; break;
        default: sum -= i;
        }
    }
    return sum;
}
"""
_PLUS_PLUS = """
std::map<std::string, std::vector<int>> count(const std::string &text)
{
    std::map<std::string, std::vector<int>> found;
    std::regex word("[a-z]+");
    for (auto at = std::sregex_iterator(text.begin(), text.end(), word); at != std::sregex_iterator(); ++at)
        found[at->str()].push_back(static_cast<int>(at->position()));
    return found;
}
int main() { std::cout << count("one two one").size(); }
"""

EMPTY = Source("empty", "cc", ".c")
SMALL = Source("small", "cc", ".c", functions=12)
MEDIUM = Source("medium", "cc", ".c", functions=90)
HEAVY = Source("heavy", "c++", ".cc", headers=("iostream", "map", "regex", "string", "vector"))
ALL = (EMPTY, SMALL, MEDIUM, HEAVY)
